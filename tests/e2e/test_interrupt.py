"""Ctrl-C, and worse, in the middle of a large replay: the database stays usable and nothing half-done is in it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from e2e_support import Cli, lines
from worked_log import LOG

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def large_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 60 MB: synthetic traffic several times over, each copy a week later and with other words."""
    from cachesim.synth import write

    folder = tmp_path_factory.mktemp("large")
    with (folder / "one.jsonl").open("wb") as file:
        write(file, seed=5, requests=2500)
    path = folder / "large.jsonl"
    one = (folder / "one.jsonl").read_bytes()
    with path.open("wb") as file:
        for copy in range(1, 2 + (60 << 20) // len(one)):
            file.write(
                one.replace(b"2026-03-", f"{2026 + copy}-03-".encode()).replace(b" the ", f" the{copy} ".encode())
            )
    return path


def start(log: Path, folder: Path, *args: str, **more: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cachesim", "replay", str(log), "--format", "json", *args]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
    )


def test_an_interrupted_replay_leaves_the_database_as_it_was(cli: Cli, tmp_path: Path, large_log: Path) -> None:
    (tmp_path / "small.jsonl").write_bytes(LOG)
    earlier = cli("replay", "small.jsonl", "--format", "json").out
    began = time.monotonic()
    undisturbed, _ = start(large_log, tmp_path, "--db", "undisturbed.duckdb").communicate()
    whole_s = time.monotonic() - began
    interrupted = 0
    for stop, share in ((signal.SIGINT, 0.2), (signal.SIGINT, 0.45), (signal.SIGINT, 0.75), (signal.SIGKILL, 0.5)):
        shutil.copyfile(tmp_path / "cachesim.duckdb", tmp_path / "other.duckdb")
        process = start(large_log, tmp_path, "--bad-lines", "bad.jsonl", "--output", "out.json", "--db", "other.duckdb")
        time.sleep(whole_s * share)
        process.send_signal(stop)
        out, err = process.communicate()
        if (tmp_path / "out.json").exists():
            (tmp_path / "out.json").unlink()
            continue  # it was faster than the first time
        interrupted += 1
        assert out == ""
        if stop is signal.SIGINT:
            # CPython ends by the signal itself, which shells call 130 too, if it strikes inside a string being executed
            assert process.returncode in (130, -signal.SIGINT), err
            assert err == "cachesim: interrupted\n", share
            assert not [p.name for p in tmp_path.iterdir() if p.suffix in (".part", ".tmp")]
        runs = cli("runs", "--db", "other.duckdb", "--format", "json").rows()
        assert [run["requests"] for run in runs] == [14]
        assert cli("replay", "small.jsonl", "--db", "other.duckdb", "--format", "json").out == earlier
    assert interrupted >= 2
    after, err = start(large_log, tmp_path).communicate()
    assert err == ""
    assert after == undisturbed
    assert len(json.loads(after)["rows"]) > 1


def group_ends(group: int) -> bool:
    """Whether every process of the group ends within five seconds."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_ctrl_c_reaches_every_process_and_is_told_once(tmp_path: Path, large_log: Path) -> None:
    """A terminal sends it to the whole group, at any time: also while processes are only being started."""
    for wait_s in (0.6, 0.9, 1.3):
        process = start(large_log, tmp_path, "--jobs", "2", "--db", "parts.duckdb", start_new_session=True)
        time.sleep(wait_s)
        os.killpg(process.pid, signal.SIGINT)
        assert process.communicate() == ("", "cachesim: interrupted\n")
        assert group_ends(process.pid)


def test_ctrl_c_before_anything_is_stored_leaves_no_run(cli: Cli, tmp_path: Path) -> None:
    """Reading a pipe that never ends is the most common thing to interrupt."""
    command = [sys.executable, "-m", "cachesim", "replay", "-"]
    with subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin
        process.stdin.write(LOG)
        process.stdin.flush()
        time.sleep(1.2)
        process.send_signal(signal.SIGINT)
        assert process.stderr
        err = process.stderr.read()
        assert process.wait() == 130
    assert err == b"cachesim: interrupted\n"
    if (tmp_path / "cachesim.duckdb").exists():
        assert cli("runs", "--format", "json").rows() == []
    (tmp_path / "log.jsonl").write_bytes(LOG + lines([]))
    assert cli("replay", "log.jsonl").code == 0


@pytest.mark.parametrize("log", [None, b"", b"{"])
def test_a_replay_in_vain_leaves_no_empty_database_and_keeps_a_full_one(
    cli: Cli, tmp_path: Path, log: bytes | None
) -> None:
    if log is not None:
        (tmp_path / "bad.jsonl").write_bytes(log)
    before = set(tmp_path.iterdir())
    assert cli("replay", "bad.jsonl").code != 0
    assert set(tmp_path.iterdir()) == before
    (tmp_path / "good.jsonl").write_bytes(LOG)
    assert cli("replay", "good.jsonl").code == 0
    assert cli("replay", "bad.jsonl").code != 0
    assert cli("report").code == 0
