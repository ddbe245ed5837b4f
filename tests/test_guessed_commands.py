"""Commands as people guess them: words of other programs, options in the wrong place, and words that mean nothing."""

import json

import pytest
from command_tree import COMMANDS


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("ask", "medalign student generate"),
        ("student chat", "medalign student generate"),
        ("student predict", "medalign student generate"),
        ("student attention", "medalign student attend"),
        ("heatmap", "medalign student attend"),
        ("student probe", "medalign student inspect"),
        ("fit", "medalign student train"),
        ("student eval", "medalign student evaluate"),
        ("download", "medalign store pull"),
        ("store upload", "medalign store push"),
        ("teacher download", "medalign store pull"),
        ("config ls", "medalign config list"),
        ("config cat", "medalign config show"),
        ("store zip", "medalign store pack"),
        ("store decribe", None),
        ("gen", "medalign student generate"),
        ("version", "medalign --version"),
        ("help", "medalign --help"),
        ("store help", "medalign store --help"),
        ("help extract", "medalign --help"),
    ],
)
def test_words_of_other_programs_lead_to_the_command(typed, meant, refusal):
    message = refusal(*typed.split())
    if meant is None:
        assert "did you mean" not in message
    else:
        assert message.endswith(f"(did you mean `{meant}`?)")


@pytest.mark.parametrize("word", ["run", "go", "cache", "x", "student go", "data ask2", ""])
def test_nothing_is_suggested_for_words_that_only_share_letters(word, refusal):
    words = word.split() or [""]
    message = refusal(*words)
    group = " ".join(["medalign", *words[:-1]])
    assert message.endswith(f"; `{group} --help` lists the commands"), message
    assert f"`{group} {words[-1] or repr('')}`" in message


@pytest.mark.parametrize(
    ("typed", "example"),
    [
        ("--seed 1 demo", "medalign COMMAND --seed"),
        ("config --out x copy", "medalign config COMMAND --out"),
        ("--out x demo", "medalign COMMAND --out"),
        ("student --student x evaluate", "medalign student COMMAND --student"),
    ],
)
def test_an_option_before_its_command_is_told_where_it_goes(typed, example, refusal):
    assert refusal(*typed.split()).endswith(f": options follow the whole command, as in `{example}`")


@pytest.mark.parametrize("typed", ["--json config list", "config --json list"])
def test_with_json_the_place_of_an_option_is_told_in_json(typed, capsys):
    assert COMMANDS.main(typed.split(), prog_name="medalign", standalone_mode=False) == 2
    assert json.loads(capsys.readouterr().out)["error"].endswith("COMMAND --json`")
