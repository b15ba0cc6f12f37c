"""What commands say about themselves: every option, one screen, what matters first."""

from __future__ import annotations

import importlib
import inspect

import pytest

from picollm.cli.help import command_help
from picollm.cli.main import COMMANDS, main


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_names_every_option_and_fits_a_screen(name: str) -> None:
    module, function, _ = COMMANDS[name]
    command = getattr(importlib.import_module(module), function)
    actions = command.items() if isinstance(command, dict) else [(name, command)]
    for action, called in actions:
        text = command_help(action, called)
        assert len(text.splitlines()) <= 30 and max(map(len, text.splitlines())) <= 110
        for parameter in inspect.signature(called).parameters:
            assert f"--{parameter.replace('_', '-')}" in text or parameter.upper() in text


def test_the_five_options_of_sft_that_matter_come_first() -> None:
    module, function, _ = COMMANDS["sft"]
    blocks = command_help("sft", getattr(importlib.import_module(module), function)).split("\n\n")
    first = [line.split()[0] for line in blocks[2].splitlines()]
    assert first == ["--base", "--format", "--config", "--out", "--learning-rate"]


def test_a_command_with_actions_lists_them() -> None:
    module, function, _ = COMMANDS["identity"]
    actions = getattr(importlib.import_module(module), function)
    text = command_help("identity", actions)
    assert all(f"  {action}" in text for action in actions)


def test_a_misspelled_option_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sft", "--lerning-rate", "1e-3"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "Did you mean --learning-rate?" in said
    assert main(["identity", "build", "--templete=x.toml"]) == 2
    assert "Did you mean --template?" in capsys.readouterr().err
