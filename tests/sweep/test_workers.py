"""Worker processes of the plain kernel: the same sums whatever their number, and none outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stored_traces import stored, tariffs, varied_trace
from test_sweep import NEW, base_run

from cachesim.core.gates import AS_CAPTURED
from cachesim.run import RunPlan
from cachesim.store.db import open_database
from cachesim.sweep import kernels, sweep
from cachesim.sweep.grid import Axes

FLOORS = tuple(range(1, 400, 40))


def test_any_number_of_workers_gives_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "WORTH_PROCESSES", 0)
    found = []
    with open_database(str(tmp_path / "runs.duckdb")) as con:
        base = base_run(con, stored(con, varied_trace(11)), RunPlan([NEW], tariffs(11)[:1], AS_CAPTURED))
        for kernel, jobs in (("plain", 1), ("plain", 2), ("compiled", 2)):
            if kernel == "compiled":
                pytest.importorskip("numba", reason="the extra `fast` is not installed")
            run_no = sweep(con, base, Axes(floors=FLOORS), kernel=kernel, jobs=jobs)  # type: ignore[arg-type]
            con.execute("SELECT * EXCLUDE (run_no) FROM swept WHERE run_no = ? ORDER BY ALL", [run_no])
            found.append(con.fetchall())
    assert found[0] == found[1] == found[2]


_ENDLESS = """
import sys
from cachesim.sweep.kernels import _processes
pool = _processes(2)
from time import sleep
futures = [pool.submit(sleep, 0) for _ in range(8)]
print(*pool._processes, flush=True)
[f.result() for f in futures]
print("ready", flush=True)
sleep(60)
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_workers_end_with_a_parent_that_is_killed() -> None:
    command = [sys.executable, "-c", _ENDLESS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        workers = [int(number) for number in parent.stdout.readline().split()]
        assert parent.stdout.readline() == "ready\n"
        parent.send_signal(signal.SIGKILL)
    until = time.monotonic() + 20
    while any(map(_runs, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert len(workers) == 2
    assert [number for number in workers if _runs(number)] == []


def _runs(number: int) -> bool:
    """Whether that process exists and is no zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        pass
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return not Path("/proc/self").exists()
