"""A command line to call in the test's own process, and a tokenizer whose every word is one token."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from e2e_support import Cli, Connect, Result

from cachesim.cli import main
from cachesim.store.db import DEFAULT_DATABASE, open_database


@pytest.fixture
def cli(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """`cli("replay", "log.jsonl", stdin=b"…")`: runs in tmp_path; a traceback anywhere fails the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("CACHESIM_DEBUG", raising=False)

    def call(*args: object, stdin: bytes | None = None) -> Result:
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        result = Result(int(ended.value.code or 0), out.decode(), err.decode())
        assert "Traceback" not in result.out + result.err
        assert result.code != 70, result.err
        return result

    return call


@pytest.fixture(scope="session")
def tokenizer() -> Path:
    """A tokenizer for which every word is one token."""
    return Path(__file__).parents[2] / "fixtures" / "words-tokenizer.json"


@pytest.fixture
def con(tmp_path: Path) -> Iterator[Connect]:
    """`con()` opens the database of the test: one that is open for longer would lock the command line out."""
    opened: list[duckdb.DuckDBPyConnection] = []

    def connect() -> duckdb.DuckDBPyConnection:
        opened.append(open_database(str(tmp_path / DEFAULT_DATABASE)))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()
