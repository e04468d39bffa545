"""Every format reads its fixtures: `fixtures/logs/<format>/` holds logs and, in `expected.json`, what they say."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cachesim.core.model import BadLine, LogRecord, Usage
from cachesim.trace.containers import Rows
from cachesim.trace.formats import FORMATS
from cachesim.trace.formats.base import DECODE_ERRORS, NotARequest
from cachesim.trace.open import find_sources
from cachesim.trace.reader import ReadFacts, ReadOptions, read_records
from cachesim.trace.times import format_us, parse_duration, parse_time

LOGS = Path(__file__).parents[2] / "fixtures" / "logs"
DEFAULTS: dict[str, Any] = {item.name: item.default for item in fields(LogRecord)} | {"tags": {}}


def options_of(written: dict[str, Any], log_format: str | None) -> ReadOptions:
    return ReadOptions(
        log_format=log_format,
        start_us=parse_time(written["start"]) if "start" in written else None,
        interval_us=parse_duration(written["interval"]) if "interval" in written else None,
        principals=written.get("principals", {}),
    )


def as_written(record: LogRecord) -> dict[str, Any]:
    """A record as `expected.json` writes it: only what differs from the defaults, times and bodies as text."""
    told = {name: getattr(record, name) for name in DEFAULTS if getattr(record, name) != DEFAULTS[name]}
    for name in ("file_no", "offset", "log_format", "digest"):
        told.pop(name, None)
    told["at"] = format_us(told.pop("at_us"))
    told["body"] = told["body"].decode()
    if "cost" in told:
        told["cost"] = format(told["cost"], "f")
    if "usage" in told:
        usage = told["usage"]
        counts = {name: getattr(usage, name) for name in Usage._fields if name != "write_5m_assumed"}
        told["usage"] = {name: count for name, count in counts.items() if count is not None}
    return told


def test_every_format_has_fixtures() -> None:
    assert sorted(path.name for path in LOGS.iterdir()) == sorted(FORMATS)


def test_every_format_has_a_page() -> None:
    pages = {path.stem: path.read_text() for path in (LOGS.parents[1] / "docs" / "formats").iterdir()}
    index = pages.pop("README")
    assert sorted(pages) == sorted(FORMATS)
    assert sorted(re.findall(r"^\| \[(\S+)\]\((\S+)\.md\) ", index, re.MULTILINE)) == sorted(
        zip(FORMATS, FORMATS, strict=True)
    )
    for known in FORMATS.values():
        assert (f"`{known.name}`" in index) == (known.kind == "document")  # documents, which no container holds
    for name, page in pages.items():
        assert page.startswith(f"# {name}: ")
        assert all(len(line) <= 160 for line in page.splitlines())


@pytest.mark.parametrize("forced", [False, True], ids=["detected", "named"])
@pytest.mark.parametrize("name", FORMATS)
def test_fixtures(name: str, forced: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(LOGS / name)
    expected = json.loads(Path("expected.json").read_bytes())
    sources, _ = find_sources(expected["files"])
    facts = ReadFacts()
    found = list(read_records(sources, options_of(expected["options"], name if forced else None), facts=facts))
    records = [item for item in found if isinstance(item, LogRecord)]
    assert {record.log_format for record in records} == {name}
    assert [as_written(record) for record in records] == expected["records"]
    bad = [{"line": item.line, "reason": item.reason} for item in found if isinstance(item, BadLine)]
    assert bad == expected["bad_lines"]
    assert facts.left_out == expected.get("left_out", {})
    assert len({record.digest for record in records}) == len(records)
    assert sum(file.records for file in facts.files) == len(records)
    assert sum(file.bad_lines for file in facts.files) == len(bad)


def rows_of(name: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The rows of a format's fixtures that are records, and what these say."""
    names = json.loads((LOGS / name / "expected.json").read_bytes())["files"]
    for source in find_sources([str(LOGS / name / file) for file in names])[0]:
        for line in (item[2] for item in Rows(source) if not isinstance(item, BadLine)):
            with suppress(*DECODE_ERRORS, NotARequest, ValueError):
                row = json.loads(line)
                yield row, told_by(name, json.dumps(row).encode())


def told_by(name: str, line: bytes) -> dict[str, Any]:
    """What a line says, wherever it stands. Raises DECODE_ERRORS, NotARequest."""
    decode = FORMATS[name].decode_line
    assert decode is not None
    record = decode(line, 0, 1, 0)
    return {member: getattr(record, member) for member in DEFAULTS if member != "digest"}


@pytest.mark.parametrize("container", ["csv", "parquet"])
@pytest.mark.parametrize("name", [known.name for known in FORMATS.values() if known.kind == "lines"])
def test_every_format_of_lines_is_read_from_cells_of_text(name: str, container: str, tmp_path: Path) -> None:
    """Objects and arrays are cells with their JSON; where there are types, numbers and booleans have theirs."""
    rows, expected = zip(*rows_of(name), strict=True)
    columns: dict[str, list[Any]] = {column: [row.get(column) for row in rows] for row in rows for column in row}
    for column, cells in columns.items():
        kinds = {type(cell) for cell in cells if cell is not None}
        if container == "csv" or not kinds.isdisjoint((dict, list)) or len(kinds) > 1:
            columns[column] = [cell if isinstance(cell, str | None) else json.dumps(cell) for cell in cells]
    path = tmp_path / f"rows.{container}"
    if container == "csv":
        out = io.StringIO(newline="")
        csv.writer(out).writerows([columns, *zip(*columns.values(), strict=True)])
        path.write_text(out.getvalue())
    else:
        pl.DataFrame(columns).write_parquet(path)
    lines = [item[2] for item in Rows(find_sources([str(path)])[0][0]) if not isinstance(item, BadLine)]
    assert [told_by(name, line) for line in lines] == list(expected)


def test_answers_are_joined_whatever_the_order_of_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(LOGS / "openai-batch")
    expected = json.loads(Path("expected.json").read_bytes())
    told = []
    for names in (["input.jsonl", "output.jsonl", "errors.jsonl"], ["errors.jsonl", "output.jsonl", "input.jsonl"]):
        facts = ReadFacts()
        records = list(read_records(find_sources(names)[0], options_of(expected["options"], None), facts=facts))
        told.append([as_written(record) for record in records if isinstance(record, LogRecord)])
        by_name = {file.name: file for file in facts.files}
        assert (by_name["input.jsonl"].answered, by_name["input.jsonl"].records) == (3, 3)
        assert (by_name["output.jsonl"].answers, by_name["errors.jsonl"].answers) == (3, 1)
        assert facts.unmatched_answers == 1  # q-9
    assert told[0] == told[1]
