"""An option with one value that is passed twice is refused, in every command: the first value would be lost."""

from command_tree import COMMANDS
from test_unknown_options import commands


def test_an_option_with_one_value_is_passed_once(refusal):
    refused = 0
    for path, command in commands():
        for item in command.params if path and not hasattr(command, "commands") else ():
            if item.param_type_name == "option" and not (item.is_flag or item.multiple):
                option = item.opts[-1]
                message = refusal(*path, option, "1", f"{option}=2")
                assert message == f"error: {option} is passed 2 times (1, 2), but has one value: pass it once"
                refused += 1
    assert refused > 100


def test_flags_and_options_with_several_values_may_be_repeated(capsys):
    line = ["student", "generate", "--student", "none", "--image", "a", "--image", "b", "--question", "q"]
    assert COMMANDS.main([*line, "--keep-lora-apart", "--keep-lora-apart"], standalone_mode=False) == 3
    assert "passed" not in capsys.readouterr().err


def test_secrets_in_repeated_values_are_masked(refusal):
    url = "s3://user:hunter2@host/a"
    message = refusal("student", "evaluate", "--split", url, "--split", url)
    assert "hunter2" not in message
    assert "--split is passed 2 times" in message
