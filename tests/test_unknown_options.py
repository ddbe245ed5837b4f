"""Options that do not exist: exit code 2 and the option that was meant, in the form that commands have."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
from command_tree import COMMANDS


def commands(group: Any = COMMANDS, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every group and command, with the words that lead to it."""
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


def misspelled(option: str, chance: random.Random) -> str:
    """An option as somebody types it in a hurry: a letter lost, two exchanged, hyphens lost or underscored."""
    name, at = option.removeprefix("--"), chance.randrange(1, max(2, len(option) - 4))
    kinds = [name[:at] + name[at + 1 :], name[:at] + name[at : at + 2][::-1] + name[at + 2 :], f"{name}{name[-1]}"]
    kinds += [name.replace("-", ""), name.replace("-", "_")] if "-" in name else []
    return f"--{chance.choice([kind for kind in kinds if kind != name])}"


def test_a_misspelled_option_of_each_command_is_recognized(refusal):
    chance = random.Random(13)
    for path, command in commands():
        options = [option for item in command.params for option in item.opts if option.startswith("--")]
        for option in chance.sample(options, min(2, len(options))):
            typed = misspelled(option, chance)
            if typed in options:
                continue
            told = refusal(*path, typed, "3")
            assert told.startswith(f"error: there is no option `{typed}` of `{' '.join(('medalign', *path))}`"), told
            assert told.endswith(f"(did you mean `{option}`?)"), told


REFUSALS = {
    "student evaluate --batchsize 3": "`--batchsize` of `medalign student evaluate` (did you mean `--batch-size`?)",
    "student compare c.yaml --reanalyse": "`--reanalyse` of `medalign student compare` (did you mean `--reanalyze`?)",
    "teacher extract --licence x": "`--licence` of `medalign teacher extract` (did you mean `--license`?)",
    "student evaluate --dtyp=float32": "`--dtyp` of `medalign student evaluate` (did you mean `--dtype`?)",
    "student train c.yaml --output-dir x": "`--output-dir` of `medalign student train` (did you mean `--out`?)",
    "--versoin": "`--versoin` of `medalign` (did you mean `--version`?)",
    "store --hlep": "`--hlep` of `medalign store` (did you mean `--help`?)",
    "store info --xqzw": "`--xqzw` of `medalign store info`; `medalign store info --help` lists the options",
    "store info --stroe": "`--stroe` of `medalign store info`; `medalign store info --help` lists the options",
    "demo -q": "`-q` of `medalign demo`; `medalign demo --help` lists the options",
}


@pytest.mark.parametrize("typed", REFUSALS)
def test_the_refusal_is_one_line_with_the_command(typed, refusal):
    assert refusal(*typed.split()) == f"error: there is no option {REFUSALS[typed]}"


def test_as_a_program_the_exit_code_is_two(capsys):
    """Also where the root itself refuses, before a command is chosen."""
    for words in (["--versoin"], ["store", "--hlep"], ["doctor", "--jsno"]):
        with pytest.raises(SystemExit) as caught:
            COMMANDS.main(words, prog_name="medalign")
        assert caught.value.code == 2
        assert capsys.readouterr().err.startswith("error: there is no option `")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--batch-size"], "Option '--batch-size' requires an argument."),
        (["--batch-size", "many"], "Invalid value for '--batch-size'"),
    ],
)
def test_other_mistakes_of_usage_are_reported_as_before(words, told, capsys):
    with pytest.raises(SystemExit) as caught:
        COMMANDS.main(["student", "evaluate", *words], prog_name="medalign")
    assert caught.value.code == 2
    assert told in capsys.readouterr().err
