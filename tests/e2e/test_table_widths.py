"""Tables as people see them: at the width of their terminal, with names whole and harmless, whatever they are."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from e2e_support import Cli, body, lines, text, usage, words
from rich.cells import cell_len

from cachesim.cli.output import PIPE_WIDTH
from cachesim.report.formats import clean

ROOT = Path(__file__).parents[2]
LONG = "anthropic/claude-sonnet-4-5-20250929-thinking-budget-32768-eu-west-"
NAMES = (
    f"{LONG}1", f"{LONG}2", "模型-通义千问-非常长的名字-非常长的名字-版本二", "\x1b[31mred\x1b[0m",
    "gpt\u202egnp.exe", "=1+1", "a\u200bb", "ab", "tab\there", "nl\nname", "\x9b2J", "[bold]not rich[/bold]", "x" * 150,
)  # fmt: skip
COMMANDS = {
    "report": ["--by-model", "--explain-columns"],
    "report of principals": ["--by", "principal,tag:app"],
    "report of requests": ["--by-request"],
    "replay": ["log.jsonl", "--policy", "dwctl-8.63", "--policy", "dwctl-10.13", "--tariff", "prices.toml"],
    "compare": ["--policy", "dwctl-8.63", "--policy", "dwctl-10.13"],
    "compare of requests": ["--policy", "dwctl-8.63", "--policy", "dwctl-10.13", "--requests"],
    "compare of rules": ["--policy", "dwctl-8.63", "--policy", "dwctl-10.13", "--by-rule"],
    "report of drift": ["--drift"],
    "index": [],
    "index of entries": ["--episodes"],
    "losers": ["--all"],
    "tariffs show": ["prices.toml"],
    "gate": ["--max-cost", "100", "--max-uncached", "100%"],
    "check": ["log.jsonl"],
    "tune": ["--floor", "5,10", "--ttl", "5m,1h"],
    "runs": [],
    "runs show": ["1"],
    "policies": [],
}
NAMED = ("report", "replay", "check")
"""Commands whose first column holds every model."""


def write_log(folder: Path) -> None:
    """Twice every model, principals and tags under the same names, and prices for all."""
    records: list[dict[str, Any]] = []
    for n, name in enumerate(NAMES * 2):
        system = ("system", text(words("s", 12), "5m"))
        records.append(
            {"at": f"2026-03-02T10:{n:02}:00Z", "principal": NAMES[n % 3], "session": name, "id": f"{name}{n}",
             "tags": {"app": NAMES[-1 - n % len(NAMES)]}, "usage": usage(16, 3),
             "body": body(system, ("user", words("u", 4)), model=name)}
        )  # fmt: skip
    (folder / "log.jsonl").write_bytes(lines(records))
    rows = (
        f'[[cache_tariff]]\nmodel = {json.dumps(name)}\nwrite_5m = "1.25"\nwrite_1h = "2"\nwrite_24h = "2.5"\n'
        f'read = "0.1"\nmin_prefix_tokens = 10\n[[base_tariff]]\nmodel = {json.dumps(name)}\n'
        'input_per_mtok = "3"\noutput_per_mtok = "15"\n'
        for name in NAMES
    )
    (folder / "prices.toml").write_text("".join(rows))


@pytest.fixture
def log(cli: Cli, tokenizer: Path, tmp_path: Path) -> Cli:
    write_log(tmp_path)
    args = COMMANDS["replay"]
    assert cli("replay", *args, "--tokenizer", tokenizer, "--quiet").code == 0
    return cli


def first_column(shown: str) -> str:
    """What stands in the first column of all tables, folded names in one piece."""
    return "".join(re.split(r"  +", line)[0] for line in shown.splitlines())


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_nothing_is_wider_than_the_terminal_or_cut(
    log: Cli, tokenizer: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for name, args in COMMANDS.items():
        command = name.partition(" of ")[0].split()
        done = log(*command, *args, *(["--tokenizer", tokenizer] if name == "replay" else []))
        assert done.code in (0, 3), done.err
        assert all(line.isprintable() for line in (done.out + done.err).splitlines()), name
        assert [line for line in done.out.splitlines() if cell_len(line.rstrip()) > width] == [], name
        assert "…" not in done.out, name
        if name in NAMED:
            column = first_column(done.out)
            assert [model for model in NAMES if clean(model) not in column] == [], name


def test_a_pipe_gets_a_fixed_width_and_no_colour(log: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS")
    shown = log("report", "--by-model").out
    assert max(cell_len(line.rstrip()) for line in shown.splitlines()) in (PIPE_WIDTH - 1, PIPE_WIDTH)
    assert "\x1b" not in shown


@pytest.mark.parametrize("width", [80, 120, 200])
def test_a_terminal_gets_its_own_width(log: Cli, tmp_path: Path, width: int) -> None:
    """On a pseudo-terminal of that size; the only escapes are colours of the table's own."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    environment = {n: v for n, v in os.environ.items() if n not in ("COLUMNS", "LINES", "NO_COLOR")}
    command = [sys.executable, "-m", "cachesim", "report", "--by-model"]
    with subprocess.Popen(
        command, cwd=tmp_path, env={**environment, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}, stdout=side,
        stdin=side, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        os.close(side)
        shown = b""
        while chunk := read(main):
            shown += chunk
        assert process.wait() == 0
    os.close(main)
    bare = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())
    assert bare != shown.decode()
    assert all(line.isprintable() for line in bare.splitlines())
    assert max(cell_len(line.rstrip()) for line in bare.splitlines()) in range(width - 15, width + 1)
    assert r"\x1b[31mred\x1b[0m" in bare


def read(terminal: int) -> bytes:
    """The next piece of output; nothing when the other side has closed."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""
