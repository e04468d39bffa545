"""Where results may not go, and what a reader that goes early or a damaged database leads to."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_support import run
from sample_run import Req, fill

from cachesim.cli import main
from cachesim.cli.output import emit, whole_file
from cachesim.report.formats import Format, Report
from cachesim.store.db import open_database

ROOT = Path(__file__).parents[2]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "runs.duckdb"
    with open_database(str(path)) as con:
        fill(con, [Req(prompt=10)])
    return path


def test_a_report_never_replaces_a_database(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = database.read_bytes()
    code, _, err = run(capsys, "report", "--db", str(database), "--format", "csv", "--output", str(database))
    assert code == 2
    assert "a DuckDB database, which would be replaced" in err
    assert database.read_bytes() == before


@pytest.mark.parametrize("option", ["--output", "--bad-lines"])
@pytest.mark.parametrize("command", ["replay", "check"])
def test_nothing_written_replaces_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, option: str
) -> None:
    log, link = tmp_path / "log.jsonl", tmp_path / "link"
    log.write_text('{"at": 1772355605, "body": {"model": "m", "messages": []}}\n')
    link.symlink_to(log)
    db = ["--db", str(tmp_path / "runs.duckdb")] if command == "replay" else []
    for target in (log, link):
        code, _, err = run(capsys, command, str(log), *db, "--format", "csv", option, str(target))
        assert code == 2
        assert f"{option} {target}: one of the inputs" in err
    assert log.read_text().startswith('{"at"')


def test_a_directory_is_no_file_to_write_to(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "report", "--db", str(database), "--format", "csv", "--output", str(database.parent))
    assert code == 2
    assert "a directory; name a file" in err


def test_a_damaged_database_is_said_to_be_damaged(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with database.open("r+b") as file:
        file.truncate(database.stat().st_size // 2)
    code, _, err = run(capsys, "report", "--db", str(database))
    assert (code, "bug" in err) == (2, False)


def test_a_reader_that_goes_early_is_no_failure(database: Path) -> None:
    command = [sys.executable, "-m", "cachesim", "report", "--db", str(database), "--by-model"]
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as gone:
        done = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_what_a_killed_writer_left_is_removed_by_the_next(database: Path, tmp_path: Path) -> None:
    target = tmp_path / "rows[1].csv"
    write = "import os, pathlib, signal, sys\nfrom cachesim.cli.output import whole_file\n"
    write += "with whole_file(pathlib.Path(sys.argv[1])) as file:\n    file.write(b'half')\n    file.flush()\n"
    killed = subprocess.run(
        [sys.executable, "-c", write + "    os.kill(os.getpid(), signal.SIGKILL)", str(target)], cwd=ROOT, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert [path.name.endswith(".part") for path in tmp_path.glob("rows*")] == [True]
    running = tmp_path / f"rows[1].csv.{os.getppid()}.part"  # of a process that may still write
    other = tmp_path / "rows[1].csv.notes.part"  # no process's
    running.touch()
    other.touch()
    with pytest.raises(SystemExit) as done:
        main(["report", "--db", str(database), "--format", "csv", "--output", str(target)])
    assert done.value.code == 0
    assert {path.name for path in tmp_path.glob("rows*")} == {target.name, running.name, other.name}


def csv_to(database: Path, target: Path | str, **streams: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "cachesim", "report", "--db", str(database), "--format", "csv", "-o", str(target)]
    return subprocess.run(command, cwd=ROOT, check=False, **streams)


def test_a_pipe_stays_a_pipe_and_a_link_a_link(database: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        assert csv_to(database, pipe).returncode == 0
        assert reader.stdout is not None
        answer = reader.stdout.read()
    assert answer.startswith(b"run,policy,tariff,requests,")
    assert pipe.is_fifo()
    link = tmp_path / "link.csv"
    link.symlink_to("rows.csv")
    assert csv_to(database, link).returncode == 0
    assert link.is_symlink()
    assert (tmp_path / "rows.csv").read_bytes() == answer


def test_the_devices_of_the_system_are_never_replaced(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root, a file renamed over /dev/null would be what every program writes to from then on."""

    def replace(self: Path, target: Path) -> None:
        raise AssertionError(f"{target} would be replaced")

    monkeypatch.setattr(Path, "replace", replace)
    for device in ("/dev/null", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        with whole_file(Path(device)) as file:
            file.write(b"")
    log = tmp_path / "log.txt"
    log.write_bytes(b"before\n")
    with log.open("ab") as stdout:
        assert csv_to(database, "/dev/stdout", stdout=stdout).returncode == 0
    assert [line.split(b",")[0] for line in log.read_bytes().splitlines()[:2]] == [b"before", b"run"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_csv_on_a_terminal_shows_what_it_would_obey(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    emit(Report("report", ["model", "requests"], [{"model": "\x1b[2J\u202e", "requests": 1}]), Format.CSV, None)
    assert screen.getvalue() == "model,requests\n\\x1b[2J\\u202e,1\n"
