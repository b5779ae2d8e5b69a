"""Options that take times and numbers, of all commands."""

import importlib
import re

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as some

from unhang.cli import main
from unhang.cli.quantities import Count, Number, Seconds, parse_seconds

COMMANDS = {name: getattr(importlib.import_module(module), name) for name, module in main._COMMANDS.items()}
QUANTITIES = [
    (name, option)
    for name, command in COMMANDS.items()
    for option in command.params
    if isinstance(option.type, (Seconds, Number, Count))
]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("1m30s", 90),
        ("1m 30s", 90),
        ("2h", 7200),
        ("1.5h", 5400),
        ("1d", 86400),
        ("12 min", 720),
        ("500ms", 0.5),
        ("1s500ms", 1.5),
        (".5", 0.5),
        ("1e-3", 0.001),
    ],
)
def test_times_are_written_as_people_write_them(text, seconds):
    """With units or as a number of seconds."""
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "x", "5x", "1m30", "30s1m", "1m1m", "s", "-1m", "nan", "1,5s", "1h-5m"])
def test_what_is_no_time_is_refused(text):
    """Not read as something else."""
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        parse_seconds(text)


@given(some.integers(0, 99), some.integers(0, 59), some.integers(0, 59))
def test_units_add_up(hours, minutes, seconds):
    """However many there are of each."""
    assert parse_seconds(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


@pytest.mark.parametrize(("name", "option"), QUANTITIES)
def test_errors_of_numbers_are_in_words(name, option):
    """On the command line and in the environment: the option, the value, and what would be right."""
    rest = ["true"] if name == "run" else []
    # What looks like an option is one to click, where an option need not have a value.
    for value in ("5x", "0" if name == "status" else "-7", "1e99"):
        for arguments, variables in (([f"{option.opts[0]}={value}"], {}), ([], {option.envvar: value})):
            result = CliRunner().invoke(COMMANDS[name], [*arguments, *rest], env=variables)
            assert result.exit_code == 2, (option, value, result.output)
            assert option.opts[0] in result.output
            assert re.search(r"no time; write|no number|no whole number|too small|too large", result.output)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_no_ranges_in_symbols(name):
    """And no command has an option whose errors speak of a float range."""
    assert not re.search(r"x[<>]|[<>]=?x", CliRunner().invoke(COMMANDS[name], ["--help"]).output)
    assert not any(isinstance(option.type, (click.FloatRange, click.IntRange)) for option in COMMANDS[name].params)
