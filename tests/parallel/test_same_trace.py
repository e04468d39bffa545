"""Any number of reading processes gives the trace that one gives: every table, row by row."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from cachesim.config import Config, load_config
from cachesim.core.model import BadLine
from cachesim.errors import CachesimError, InputError, NothingUsable
from cachesim.parallel.share import Task
from cachesim.pipeline import Preparation, body_rule_sets, prepare
from cachesim.store.db import open_database
from cachesim.synth import write
from cachesim.trace.open import find_sources
from cachesim.trace.reader import ReadOptions

Tables = dict[str, list[Any]]


def synthetic(requests: int) -> list[bytes]:
    out = BytesIO()
    write(out, 11, requests)
    return out.getvalue().splitlines(keepends=True)


def request(*messages: tuple[str, str]) -> bytes:
    body = {"model": "m", "messages": [{"role": role, "content": content} for role, content in messages]}
    return json.dumps({"at": "2026-03-02T00:00:00Z", "principal": "p", "body": body}).encode() + b"\n"


def awkward(lines: list[bytes]) -> bytes:
    """Lines with all that makes numbers depend on what came before: bad, blank, repeated, nameless, out of order."""
    chance = random.Random(5)
    made: list[bytes] = []
    for number, line in enumerate(lines):
        row = json.loads(line)
        if number % 7 == 0:
            del row["id"]
        if number % 11 == 0:
            row["api_key"] = f"sk-{row.pop('principal')}"
        if number % 5 == 0:
            row["body"]["model"] = chance.choice(["other", "plain", "m-1"])
        if number % 13 == 0:
            row["body"]["messages"][0]["content"] = [{"type": "text", "text": "s", "cache_control": {"ttl": "1h"}}]
        made.append(json.dumps(row, separators=(",", ":")).encode() + (b"\r\n" if number % 3 else b"\n"))
        if number % 9 == 0:
            made += [b"\n", b'{"at": 1, "body": {}\n', b'{"body":{"messages":[]}}\n', b"  \r\n"]
        if number % 10 == 0:
            made.append(chance.choice(made))
    shuffled = made[len(made) // 2 :]
    chance.shuffle(shuffled)
    return b"".join([*made[: len(made) // 2], *shuffled])


def tables(*files: Path, jobs: int, options: ReadOptions | None = None, **more: Any) -> tuple[Tables, list[Any]]:
    """Every row that preparation stores, and the bad lines as they were told."""
    told: list[Any] = []

    def bad_line(line: BadLine) -> None:
        told.append(asdict(line))

    config = more.pop("config", None) or load_config([])
    with open_database(":memory:") as con:
        sources = find_sources([str(file) for file in files])[0]
        job = Preparation(
            sources, options or ReadOptions(), config, body_rule_sets([]), on_bad_line=bad_line, jobs=jobs, **more
        )
        prepare(con, job)
        names = con.execute("SELECT table_name FROM duckdb_tables() WHERE NOT temporary ORDER BY 1").fetchall()
        return {name: con.execute(f'SELECT * FROM "{name}"').fetchall() for (name,) in names}, told


# A role that holds a whole block gives one block the hash of two; such boundaries are told apart by their parents.
HONEST = request(("user", "a"), ("user", "b"))
FORGED = request(('user\0{"text":"a","type":"text"}user', "b"))


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs")
    lines = synthetic(160)
    (folder / "one.jsonl").write_bytes(b"\xef\xbb\xbf" + awkward(lines[:120]))
    (folder / "two.jsonl.gz").write_bytes(gzip.compress(awkward(lines[90:130])))
    (folder / "three.jsonl").write_bytes(b"".join([FORGED, *lines[100:130], HONEST, *lines[130:]]).rstrip())
    (folder / "nothing.jsonl").write_bytes(b"")
    (folder / "binary.jsonl").write_bytes(b"PK\x03\x04 and more\n" * 10)
    (folder / "requests.jsonl").write_bytes(
        b"".join(json.dumps({"custom_id": f"c{i}", "method": "POST", "url": "/v1/chat/completions",
                             "body": {"messages": [{"role": "user", "content": f"{i}"}]}}).encode() + b"\n"
                 for i in range(9))
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def config(logs: Path) -> Config:
    (logs / "c.toml").write_text('[models."other"]\ntokenizer = "unmapped"\n')
    return load_config([str(logs / "c.toml")])


def assert_same(
    *files: Path, jobs: tuple[int, ...] = (2, 3), options: ReadOptions | None = None, config: Config | None = None
) -> Tables:
    whole = tables(*files, jobs=1, options=options, config=config)
    for number in jobs:
        assert tables(*files, jobs=number, options=options, config=config) == whole
    return whole[0]


def test_an_awkward_log_in_several_files(logs: Path, config: Config) -> None:
    found = assert_same(*(logs / f"{name}" for name in ("one.jsonl", "two.jsonl.gz", "three.jsonl")), config=config)
    facts = json.loads(found["traces"][0][3])
    assert facts["duplicates"] > 5
    assert facts["unordered"] > 5
    assert facts["bad"]["missing_time"] > 5
    assert len(found["bad_lines"]) == sum(facts["bad"].values())
    assert len({row[3] for row in found["nodes"]}) < len(found["nodes"]), "twins: several nodes with one prefix"


def test_times_that_leave_records_out(logs: Path) -> None:
    options = ReadOptions(principal="p", since_us=1_772_400_000_000_000, until_us=1_772_500_000_000_000)
    assert_same(logs / "one.jsonl", options=options, jobs=(3,))


def test_files_without_lines(logs: Path) -> None:
    files = [logs / f"{name}.jsonl" for name in ("nothing", "binary", "three")]
    assert_same(*files, jobs=(2,))


def test_made_up_times_count_records_so_one_process_reads(logs: Path) -> None:
    assert_same(logs / "requests.jsonl", options=ReadOptions(start_us=0, interval_us=1_000_000), jobs=(2,))


def test_more_processes_than_lines(logs: Path, tmp_path: Path) -> None:
    (tmp_path / "short.jsonl").write_bytes(b"".join(synthetic(3)))
    assert_same(tmp_path / "short.jsonl", jobs=(8,))


def test_what_cannot_be_read_is_the_same_error(logs: Path, tmp_path: Path) -> None:
    def failure(jobs: int, **more: Any) -> str:
        with pytest.raises(CachesimError) as error:
            tables(logs / "one.jsonl", jobs=jobs, **more)
        return f"{type(error.value).__name__}: {error.value}"

    (tmp_path / "c.toml").write_text('[models."m-1"]\ntokenizer = "nowhere.json"\n')
    for more in ({"config": load_config([str(tmp_path / "c.toml")])}, {"strict": True}):
        assert failure(1, **more) == failure(2, **more)
    assert failure(2, strict=True).startswith(NothingUsable.__name__)


def die(alias: str | None) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def doomed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Task]]:
    """Processes that are killed when they meet the first model."""

    def task(*args: Any) -> Task:
        return Task(*args[:5], die, {})  # type: ignore[arg-type]

    monkeypatch.setattr("cachesim.pipeline.Task", task)
    return task  # type: ignore[return-value]


@pytest.mark.usefixtures("doomed")
def test_a_killed_process_is_told_and_nothing_is_stored(logs: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "runs.duckdb")
    with open_database(path) as con:
        sources = find_sources([str(logs / "one.jsonl")])[0]
        job = Preparation(sources, ReadOptions(), load_config([]), body_rule_sets([]), jobs=2)
        with pytest.raises(CachesimError, match=r"ended early \(by signal SIGKILL\).*nothing was stored.*--jobs 1"):
            prepare(con, job)
        for table in ("traces", "requests", "bad_lines", "nodes", "token_counts"):
            assert con.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_an_error_of_a_process_is_told_as_what_it_is(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(task: Task, **changes: Any) -> Task:
        if changes["parts"][0].start == 0:  # the first share is read in this process
            return replace(task, **changes)
        sources = [copy(source) for source in task.sources]
        for source in sources:
            source.path = Path(f"{source.path}.gone")
        return replace(task, sources=sources, **changes)

    monkeypatch.setattr("cachesim.parallel.gather.replace", gone)
    with pytest.raises(InputError, match=r"one\.jsonl: cannot be read \(No such file or directory\); check the path"):
        tables(logs / "one.jsonl", jobs=2)
