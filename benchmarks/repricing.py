"""Measures pricing a stored run under another tariff: the run of the demo log, its rows repeated up to a million."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb

from cachesim.comparison import Wanted, compare
from cachesim.report.compare import compared
from cachesim.store.db import open_database

DEMO = Path(__file__).resolve().parents[1] / "fixtures" / "demo.jsonl.gz"
MODELS = ("kimi-k2", "gpt-oss-120b", "deepseek-chat", "minimax-m2")
TARIFF = """
[[cache_tariff]]
model = "{model}"
write_5m = "1.25"
write_1h = "2"
write_24h = "2.5"
read = "{read}"
min_prefix_tokens = 1024
[[base_tariff]]
model = "{model}"
input_per_mtok = "1"
output_per_mtok = "4"
purpose = "realtime"
"""
RUNS = 3


def repeat(con: duckdb.DuckDBPyConnection, requests: int) -> None:
    """Repeat the requests and their first classification, a minute later each time, for 200 times the principals."""
    (count,) = con.execute("SELECT count(*) FROM requests").fetchone() or (1,)
    again = f"range({requests // count + 1}) t(i) WHERE seq + {count} * i < {requests}"
    con.execute(
        f"CREATE TEMP TABLE more AS SELECT * REPLACE (seq + {count} * i AS seq, at_us + 60000000 * i AS at_us,"
        f" principal || i % 200 AS principal) FROM requests, {again}"
    )
    con.execute(f"CREATE TEMP TABLE done AS SELECT * REPLACE (seq + {count} * i AS seq) FROM classified, {again}")
    con.execute("DELETE FROM requests; DELETE FROM classified")
    con.execute("INSERT INTO requests SELECT * EXCLUDE (i) FROM more ORDER BY seq")
    con.execute("INSERT INTO classified SELECT * EXCLUDE (i) FROM done WHERE variant_no = 0 ORDER BY seq")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    requests = parser.parse_args().requests
    with tempfile.TemporaryDirectory() as folder:
        for name, read in (("old", "0.1"), ("new", "0.2")):
            Path(folder, f"{name}.toml").write_text("".join(TARIFF.format(model=m, read=read) for m in MODELS))
        new, db = str(Path(folder, "new.toml")), str(Path(folder, "runs.duckdb"))
        replay = [sys.executable, "-m", "cachesim", "replay", str(DEMO), "--tariff", "old.toml", "--db", db, "--quiet"]
        subprocess.run(replay, cwd=folder, stdout=subprocess.DEVNULL, check=True)
        with open_database(db) as con:
            repeat(con, requests)
        with open_database(db, read_only=True) as con:
            for _ in range(RUNS):
                started = time.perf_counter()
                pair = compare(con, Wanted(1), Wanted(1, tariff=new), may_replay=False).pair
                found = time.perf_counter()
                total = compared(con, pair).shown[0]
                ended = time.perf_counter()
                print(
                    f"{total.b['requests']:,} billed requests of {requests:,} under two tariffs: prices found in "
                    f"{found - started:.2f} s, both bills in {ended - found:.2f} s"
                )


if __name__ == "__main__":
    main()
