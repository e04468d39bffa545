"""The documents are true: examples print what stands there, commands and options exist, tables are complete."""

from __future__ import annotations

import re
from difflib import unified_diff
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from refresh_readme import DOCUMENTS, ROOT, refreshed

from cachesim import errors
from cachesim.cli import BUG, INTERRUPTED
from cachesim.cli.lazy import COMMANDS, load
from cachesim.config import load_config, load_tariff_set
from cachesim.core.gates import STRATEGIES
from cachesim.core.policy import PRESETS
from cachesim.trace.formats import FORMATS

README = (ROOT / "README.md").read_text(encoding="utf-8")
EVERYWHERE = {"--help", "--version"}


@cache
def options_of(command: str) -> frozenset[str]:
    """Every option of a command and of its subcommands."""
    return frozenset(EVERYWHERE | _options(load(command)))


def _options(command: Any) -> set[str]:
    own = {option for parameter in command.params for option in parameter.opts if option.startswith("-")}
    return own.union(*(_options(sub) for sub in getattr(command, "commands", {}).values()))


def mentioned_commands() -> list[str]:
    """Every `cachesim …` command line of the page, in a fence, a table or a sentence."""
    lines = re.findall(r"^\$ (cachesim .*)$", README, re.MULTILINE) + re.findall(r"`(cachesim [^`\n]+)`", README)
    lines += re.findall(r"^(?:next)? +\d\. (cachesim .*)$", README, re.MULTILINE)
    return sorted({line.split("  #")[0] for line in lines})


def table_under(heading: str, document: str = README) -> list[list[str]]:
    """The cells of the first table after a heading or header row, without its two head rows."""
    rows = document.split(heading, 1)[1].split("| --- ", 1)[1].splitlines()[1:]
    table = []
    for row in rows:
        if not row.startswith("|"):
            break
        table.append([cell.strip() for cell in row.strip("|").split("|")])
    return table


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_example_prints_what_stands_there(name: str, tmp_path: Path) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    now = refreshed(text, tmp_path)
    changes = list(unified_diff(text.splitlines(), now.splitlines(), "as it stands", "as it is", lineterm="", n=0))
    assert not changes, "run python tools/refresh_readme.py and read what changed:\n" + "\n".join(changes)


def test_an_example_that_is_not_true_is_noticed(tmp_path: Path) -> None:
    text = "```toml a.toml\nx = 1\n```\n```python\nprint(open('a.toml').read())\n```\n```text\nx = 2\n```\n"
    assert refreshed(text, tmp_path) == text.replace("x = 2", "x = 1")


def test_only_this_program_is_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only cachesim is run"):
        refreshed("```console\n$ rm nothing\n```\n", tmp_path)


@pytest.mark.parametrize("line", mentioned_commands())
def test_every_command_and_option_exists(line: str) -> None:
    command, *arguments = line.split()[1:]
    if command in EVERYWHERE:
        return
    assert command in {entry.name for entry in COMMANDS}
    given = {argument.split("=")[0] for argument in arguments if argument.startswith("-") and argument != "-"}
    assert given <= options_of(command), f"{line}: {given - options_of(command)}"


def test_every_option_named_in_a_sentence_exists() -> None:
    known = frozenset().union(*(options_of(entry.name) for entry in COMMANDS))
    named = {match.split()[0] for match in re.findall(r"`(--[^`]+)`", README)}
    assert named, "the page names no option"
    assert named <= known


def test_every_command_is_shown() -> None:
    assert {line.split()[1] for line in mentioned_commands()} >= {entry.name for entry in COMMANDS} - {"runs"}
    assert "`cachesim runs`" in README


def test_the_tables_are_complete() -> None:
    assert {row[0].strip("`") for row in table_under("## Logs")} == set(FORMATS)
    codes = {int(row[0]) for row in table_under("| Exit code")}
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.CachesimError)]
    assert codes == {error.exit_code for error in classes} | {0, BUG, INTERRUPTED}
    strategies = README.split("Marker strategies: ", 1)[1].split(". ", 1)[0]
    assert re.findall(r"`([^`]+)`", strategies) == list(STRATEGIES)
    for preset in PRESETS:
        assert preset.removeprefix("dwctl-") in README.split("## Fidelity")[1]


def test_the_configuration_shown_is_valid_and_says_what_the_page_says(tmp_path: Path) -> None:
    shown = dict(re.findall(r"^```toml (\S+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL))
    for name, text in shown.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    config = load_config([str(tmp_path / "example.toml")])
    assert (config.policy_preset, config.policy_rules, config.warnings) == ("dwctl-10.13", {"walk_back": 20}, [])
    assert list(config.principals.values()) == ["acme"]
    assert not load_tariff_set(str(tmp_path / "cheap-writes.toml")).warnings


def test_the_number_of_golden_cases_is_the_measured_one() -> None:
    measured = re.search(r"^(\d+) passed, 0 failed, (\d+) skipped$", README, re.MULTILINE)
    assert measured
    assert set(re.findall(r"([\d,]+) golden cases", README)) == {f"{int(measured[1]):,}"}
    assert f"{measured[2]} cases beyond" in README


def test_the_paths_in_the_table_of_changes_exist() -> None:
    for path in re.findall(r"`((?:cachesim|tests|tools|fixtures|benchmarks|\.ci)/[\w./]*)`", README):
        assert (ROOT / path).exists(), path


def test_ci_runs_the_test_command_of_the_page() -> None:
    install = ".venv/bin/pip install -q -c constraints.txt -e '.[test]'"
    commands = [line for line in README.splitlines() if line.endswith("-m pytest -n auto")]
    assert commands == [f"python3 -m venv .venv && {install} && .venv/bin/python -m pytest -n auto"]
    assert "grep -m1 -e '-m pytest -n auto$' README.md" in (ROOT / ".ci/run").read_text(encoding="utf-8")


def test_the_constraints_are_plain_exact_versions_and_cover_what_the_project_asks_for() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = {re.fullmatch(r"([A-Za-z0-9._-]+)==[\w.]+", line)[1].lower().replace("_", "-") for line in lines}  # type: ignore[index]
    asked = re.findall(r'"([a-z][a-z-]+)(?:>=|==|<)', (ROOT / "pyproject.toml").read_text())
    assert set(asked) - {"hatchling"} <= pinned
