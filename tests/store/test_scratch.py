"""Room beside a file: runs are replayed in it with the same result, unseen by others, and the file is only read."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from stored_traces import run_stored, stored, tariffs, varied_trace

from cachesim.core.gates import AS_CAPTURED
from cachesim.core.policy import PRESETS
from cachesim.report.query import Filters, report_rows
from cachesim.run import RunPlan
from cachesim.store.db import open_database
from cachesim.store.scratch import scratch

NEW = PRESETS["dwctl-10.13"]
PLAN = RunPlan([NEW], tariffs(1), AS_CAPTURED)
OTHER = RunPlan([replace(NEW, name="short", walk_back=2)], tariffs(1), AS_CAPTURED)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A run database with one trace and one run, under a name that has to be quoted."""
    path = tmp_path / '"one".duckdb'
    with open_database(str(path)) as con:
        trace_no = stored(con, varied_trace(1, 60))
        assert run_stored(con, trace_no, PLAN) == 1
    return path


def test_a_replay_beside_the_file_is_the_replay_in_it(file: Path) -> None:
    before = sha256(file.read_bytes()).hexdigest()
    with open_database(str(file), read_only=True) as con, scratch(con) as room:
        number = run_stored(room, 1, OTHER)
        beside = report_rows(room, number, ["model", "principal"], Filters(bounds=True))
        assert con.execute("SELECT run_no FROM runs").fetchall() == [(1,)]
    assert number == 2
    assert sha256(file.read_bytes()).hexdigest() == before
    with open_database(str(file)) as con:
        assert run_stored(con, 1, OTHER) == 2
        assert report_rows(con, 2, ["model", "principal"], Filters(bounds=True)) == beside


def test_an_equal_run_is_replaced_as_in_a_file(file: Path) -> None:
    with open_database(str(file), read_only=True) as con, scratch(con) as room:
        assert [run_stored(room, 1, plan) for plan in (OTHER, OTHER, PLAN)] == [2, 2, 3]
        assert room.execute("SELECT run_no FROM runs ORDER BY 1").fetchall() == [(2,), (3,)]


def test_a_run_beside_knows_when_it_was_made(file: Path) -> None:
    with open_database(str(file), read_only=True) as con, scratch(con) as room:
        number = run_stored(room, 1, OTHER)
        assert room.execute("SELECT created_at IS NOT NULL FROM runs WHERE run_no = ?", [number]).fetchone() == (True,)
