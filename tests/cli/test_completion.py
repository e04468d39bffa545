"""Shells complete commands and options, and help is there at once."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHELLS = ("bash", "zsh", "fish")
ASKED = {
    "bash": lambda words: {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))},
    "zsh": lambda words: {"_TYPER_COMPLETE_ARGS": words},
    "fish": lambda words: {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
}
"""How each shell's script hands over the line before the cursor."""


def cachesim(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cachesim", *args], cwd=ROOT, env={**os.environ, **environment}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_its_script(shell: str, tmp_path: Path) -> None:
    done = cachesim("--show-completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_CACHESIM_COMPLETE=complete_{shell}" in done.stdout
    if program := shutil.which(shell):
        script = tmp_path / "script"
        script.write_text(done.stdout)
        assert subprocess.run([program, "-n", script], check=False).returncode == 0


def test_another_shell_is_a_mistake() -> None:
    done = cachesim("--show-completion", "tcl")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "'bash', 'zsh', 'fish'" in done.stderr


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("words", "found", "other"),
    [
        ("cachesim re", ["replay", "report"], "tune"),
        ("cachesim report --by-", ["--by-model", "--by-request"], "--top"),
        ("cachesim runs s", ["show"], "delete"),
        ("cachesim report --format p", ["parquet"], "json"),
    ],
)
def test_commands_options_and_values_are_completed(shell: str, words: str, found: list[str], other: str) -> None:
    done = cachesim(_CACHESIM_COMPLETE=f"complete_{shell}", **ASKED[shell](words))
    assert all(word in done.stdout for word in found), done.stdout + done.stderr
    assert other not in done.stdout


def test_bash_itself_completes(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    program = tmp_path / "cachesim"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m cachesim "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(cachesim --show-completion bash)"; COMP_WORDS=(cachesim runs d); COMP_CWORD=2;'
        ' _cachesim_completion cachesim; echo "${COMPREPLY[*]}"'
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([bash, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["delete"], done.stderr


def test_help_takes_less_than_0_3_seconds_of_a_core() -> None:
    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert cachesim("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(once() for _ in range(3)) < 0.3
