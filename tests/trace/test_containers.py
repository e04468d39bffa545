"""The same rows in every container: JSON Lines, arrays, CSV, Parquet, compressed or not, whole or damaged."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cachesim.core.model import BadLine, LogRecord
from cachesim.errors import InputError
from cachesim.trace import parquet_rows
from cachesim.trace.containers import Container, Rows, container_of
from cachesim.trace.csv_rows import delimiter_of
from cachesim.trace.detect import identify
from cachesim.trace.formats import FORMATS
from cachesim.trace.json_array import ARRAY_START, WRAPPER_START, Element, elements
from cachesim.trace.open import find_sources
from cachesim.trace.reader import ReadFacts, ReadOptions, read_records

BODY = '{"model": "m", "temperature": 1.0, "messages": [{"role": "user", "content": "a \\"b\\" }] {[\\n\\u2028"}]}'
ROWS: list[dict[str, Any]] = [
    {"id": "1", "at": "2026-01-01T00:00:00Z", "principal": "p", "body": BODY, "usage": {"prompt_tokens": 5}},
    {"id": "2", "at": "2026-01-01T00:00:01Z", "principal": "q", "body": BODY, "status": 500, "duration_ms": 12.5},
]


def as_lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def as_array(rows: list[dict[str, Any]]) -> bytes:
    return json.dumps(rows, indent=2).encode()


def as_page(rows: list[dict[str, Any]]) -> bytes:
    page = {"object": "list", "meta": {"page": 1, "of": "[{"}, "data": rows, "has_more": False, "more": {"x": ["]"]}}
    return json.dumps(page).encode()


def as_csv(rows: list[dict[str, Any]], **style: Any) -> bytes:
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO(newline="")
    writer = csv.writer(out, **style)
    writer.writerow(names)
    for row in rows:
        cells = [row.get(name, "") for name in names]
        writer.writerow([json.dumps(cell) if isinstance(cell, dict) else cell for cell in cells])
    return out.getvalue().encode()


def as_parquet(rows: list[dict[str, Any]], folder: Path) -> bytes:
    """Through DuckDB, which keeps `usage` as a struct and absent values as nulls."""
    (folder / "rows.jsonl").write_bytes(as_lines(rows))
    duckdb.sql(f"COPY (FROM read_json('{folder}/rows.jsonl')) TO '{folder}/rows.parquet'")
    return (folder / "rows.parquet").read_bytes()


class Read:
    """What came of reading one file with these bytes."""

    def __init__(self, folder: Path, content: bytes, name: str = "log") -> None:
        (folder / name).write_bytes(content)
        sources, _ = find_sources([str(folder / name)])
        self.facts = ReadFacts()
        found = list(read_records(sources, ReadOptions(), facts=self.facts))
        self.records = [item for item in found if isinstance(item, LogRecord)]
        self.bad = [item for item in found if isinstance(item, BadLine)]
        self.source = sources[0]

    @property
    def ids(self) -> list[str | None]:
        return [record.id for record in self.records]

    @property
    def faults(self) -> list[tuple[int, int, str]]:
        return [(bad.line, bad.offset, bad.reason) for bad in self.bad]


def without_place(record: LogRecord) -> LogRecord:
    return replace(record, line=0, offset=0, digest=0)


COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}


@pytest.mark.parametrize("compress", COMPRESSED.values(), ids=COMPRESSED)
def test_every_container_gives_the_same_records(compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    expected = [without_place(record) for record in Read(tmp_path, as_lines(ROWS)).records]
    assert [record.body for record in expected] == [BODY.encode()] * 2
    styles: list[dict[str, Any]] = [
        {"delimiter": d, "quoting": q} for d in ",;" for q in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
    ]
    tables = [as_csv(ROWS, **style) for style in styles]
    for content in (as_array(ROWS), as_page(ROWS), *tables, as_parquet(ROWS, tmp_path)):
        for start in (b"", b"\xef\xbb\xbf") if not content.startswith(b"PAR1") else (b"",):
            found = Read(tmp_path, compress(start + content))
            assert found.bad == []
            assert [without_place(record) for record in found.records] == expected
            assert found.source.size == len(compress(start + content))
            assert found.source.sha256 is not None


def test_containers_are_told_by_their_beginning() -> None:
    told = {content: container_of(content) for content in (as_lines(ROWS), as_array(ROWS), as_page(ROWS), as_csv(ROWS))}
    assert list(told.values()) == [Container.LINES, Container.ARRAY, Container.WRAPPED, Container.CSV]
    assert container_of(b"[]") is Container.ARRAY
    assert container_of(b"[2026-01-01] starting\n{}") is Container.LINES
    assert container_of(b'{"id": 1, "observations": [{"a": 1}]}') is Container.LINES  # one trace, no page of rows
    for header, delimiter in ((b"id,body", ","), (b"id;body", ";"), (b'"id","body"', ","), (b'"id";"body"', ";")):
        assert delimiter_of(header + b"\r\n1;x") == delimiter
    for text in (
        b"Hello, world!\n",
        b"a,a\n1,2\n",
        b"id,body",
        b"id\n1\n",
        b'"id" "body"\n1\n',
        b'starting, now\n{"at": 1}\n',
    ):
        assert container_of(text) is Container.LINES


# -- JSON arrays


def test_elements_are_cut_out_as_they_stand(tmp_path: Path) -> None:
    first, second = b'{"at":1.50,"body":{"a":1e2},"x":"]"}', b'{ "at" : 2 , "body" : {"a" : 1.0} }'
    content = b"[\n  " + first + b",\n\n  " + second + b"\n]\n"
    found = Read(tmp_path, content)
    assert [(record.line, record.offset) for record in found.records] == [(1, 4), (2, content.index(second))]
    assert [record.body for record in found.records] == [b'{"a":1e2}', b'{"a" : 1.0}']


def test_a_cut_array_keeps_what_stands_before_the_cut(tmp_path: Path) -> None:
    content = as_array(ROWS)
    start = content.index(b"{", content.index(b"}\n  }") + 5)  # of the second row
    for end in (start + 1, start + 40, len(content) - 4):
        found = Read(tmp_path, content[:end])
        assert found.ids == ["1"]
        assert found.faults == [(2, start, "truncated")]
    found = Read(tmp_path, gzip.compress(content)[:-20])
    assert (found.ids[:1], [bad.reason for bad in found.bad]) == (["1"], ["corrupt_compression"])


def test_elements_without_ids_are_named_by_their_number(tmp_path: Path) -> None:
    """Their lines do not tell them apart: all may stand in one. Every element counts, over all pages."""
    rows = [{name: row[name] for name in row if name != "id"} for row in ROWS]
    for content, numbers in (
        (json.dumps(rows).encode(), (1, 2)),
        (json.dumps(rows, indent=2).encode(), (1, 2)),
        (json.dumps([rows[0], 7, rows[1]]).encode(), (1, 3)),
        (as_page(rows[:1]) + as_page(rows[1:]), (1, 2)),
    ):
        assert Read(tmp_path, content).ids == [f"{tmp_path}/log:{number}" for number in numbers]


def test_only_the_bad_elements_of_an_array_are_lost(tmp_path: Path) -> None:
    rows = as_lines(ROWS).splitlines()
    found = Read(tmp_path, b"[" + rows[0] + b',\n7,"a","b,]", {"at": },\n' + rows[1] + b"]")
    assert found.ids == ["1", "2"]
    assert [reason for _, _, reason in found.faults] == ["not_an_object"] * 3 + ["not_json"]


def test_pages_stand_one_after_the_other(tmp_path: Path) -> None:
    assert Read(tmp_path, as_array(ROWS[:1]) + b"\n" + as_array(ROWS[1:]) + b"[]").ids == ["1", "2"]
    assert Read(tmp_path, as_page(ROWS[:1]) + b"\n" + as_page(ROWS[1:]) + as_page([])).ids == ["1", "2"]
    found = Read(tmp_path, as_array(ROWS) + b"\nstop")
    assert (found.ids, [bad.reason for bad in found.bad]) == (["1", "2"], ["not_json"])


def test_lines_may_begin_like_a_wrapped_array(tmp_path: Path) -> None:
    rows = [{"items": [{"a": 1}], **row} for row in ROWS]
    assert container_of(as_lines(rows)) is Container.WRAPPED
    assert Read(tmp_path, as_lines(rows)).ids == ["1", "2"]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('ab"\\{}[],: \n\u2028ü'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a"\\{]', max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(values, max_size=5), st.sampled_from([None, 1]), st.booleans(), st.integers(1, 7), st.data())
def test_elements_of_any_array(rows: list[Any], indent: int | None, wrap: bool, step: int, data: st.DataObject) -> None:
    """Whatever the size of what is read at once; cut anywhere, all elements before the cut are there."""
    rows = [{"first": 1}, *rows]
    text = json.dumps({"has_more": True, "rows": rows, "b": [1]} if wrap else rows, indent=indent, ensure_ascii=False)
    start, content = (WRAPPER_START if wrap else ARRAY_START), text.encode()

    def read_all(content: bytes) -> list[Element]:
        stream = io.BytesIO(content)
        return list(elements(lambda size: stream.read(step), 0, start, 1 << 20))

    whole = read_all(content)
    assert [json.loads(element.text) for element in whole] == rows
    for number, element in enumerate(whole, 1):
        assert content[element.offset :].startswith(element.text)
        assert element.number == number
    begins = start.match(content)
    assert begins is not None
    end = data.draw(st.integers(begins.end(), len(content) - 1))
    *kept, last = read_all(content[:end])
    assert kept == whole[: len(kept)]
    assert last.fault == "cut" or content[end:].strip() == b""
    closed = [element.offset + len(element.text) - (element.text[:1] in b"{[") for element in whole]
    assert len(kept) == sum(close < end for close in closed)  # 12 may go on as 123, {} is over


def test_an_element_beyond_the_limit_ends_the_array() -> None:
    content = b'[{"a": 1}, {"b": "' + b"x" * 20_000 + b'"}, {"c": 1}]'
    stream = io.BytesIO(content)
    found = list(elements(lambda size: stream.read(10), 0, ARRAY_START, 6_000))
    assert [(element.text[:4], element.fault) for element in found] == [(b'{"a"', None), (b'{"b"', "too_long")]
    assert 6_000 < len(found[1].text) <= 6_010


# -- CSV

HEADER = b"id,at,principal,body\r\n"
ROW = b'1,5,p,"{""a"":\n1}"\r\n'


def test_rows_of_csv_know_their_lines(tmp_path: Path) -> None:
    found = Read(tmp_path, HEADER + ROW + b"\r\n" + ROW.replace(b"1,5", b"2,6.5"))
    assert [(record.id, record.line, record.offset) for record in found.records] == [("1", 2, 22), ("2", 5, 44)]
    assert [record.at_us for record in found.records] == [5_000_000, 6_500_000]
    assert found.records[0].body == b'{"a":\n1}'
    assert found.bad == []


CSV_FAULTS = {
    "too few cells": (b"2,5,p\r\n", "bad_csv"),
    "too many cells": (b"2,5,p,{},x\r\n", "bad_csv"),
    "text behind a quotation mark": (b'2,5,p,"a"b\r\n', "bad_csv"),
    "not UTF-8": (b"2,5,p,\xff\r\n", "invalid_utf8"),
    "no body": (b"2,5,p,\r\n", "missing_body"),
    "a time that is none": (b"2,soon,p,{}\r\n", "bad_field:at"),
}


@pytest.mark.parametrize("name", CSV_FAULTS)
def test_a_bad_row_of_csv_costs_itself(name: str, tmp_path: Path) -> None:
    bad, reason = CSV_FAULTS[name]
    found = Read(tmp_path, HEADER + ROW + bad + ROW.replace(b"1,", b"3,", 1))
    assert (found.ids, found.faults) == (["1", "3"], [(4, 42, reason)])


@pytest.mark.parametrize("end", [1, 4, 8, 14])
def test_a_cut_csv_file_keeps_its_whole_rows(end: int, tmp_path: Path) -> None:
    found = Read(tmp_path, HEADER + ROW + ROW[:end])
    assert (found.ids, found.faults) == (["1"], [(4, 42, "truncated")])


def test_a_cell_beyond_the_limit_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachesim.trace.csv_rows.MAX_LINE_BYTES", 200_000)
    found = Read(tmp_path, HEADER + b'9,5,p,"' + b"x" * 300_000 + b'"\r\n' + ROW)
    assert (found.ids, [bad.reason for bad in found.bad]) == (["1"], ["bad_csv"])
    assert "larger than field limit (200000)" in found.bad[0].message


def test_a_cell_may_be_larger_than_the_module_csv_allows_by_itself(tmp_path: Path) -> None:
    body = json.dumps({"a": "x" * 300_000})
    found = Read(tmp_path, as_csv([{"at": 1, "principal": "p", "body": body}]))
    assert [record.body for record in found.records] == [body.encode()]


def test_csv_of_no_known_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape("its rows match no known format (read as CSV)")):
        Read(tmp_path, b"name,age\nx,1\ny,2\n")


# -- Parquet


def test_parquet_under_a_name_that_looks_like_a_pattern(tmp_path: Path) -> None:
    content = as_parquet(ROWS, tmp_path)
    found = Read(tmp_path, content, "a[1]*'.parquet")
    assert [(record.id, record.line) for record in found.records] == [("1", 1), ("2", 2)]


def test_numbers_of_parquet_are_exact(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    row = "SELECT 1 AS at, '{}' AS body, 0.123456789012345678::DECIMAL(38, 18) AS cost, MAP {'total': cost} AS costs"
    duckdb.sql(f"COPY ({row}) TO '{path}'")
    (_, _, line), *_ = (item for item in Rows(find_sources([str(path)])[0][0]) if not isinstance(item, BadLine))
    assert json.loads(line)["cost"] == "0.123456789012345678"
    assert json.loads(line)["costs"] == {"total": "0.123456789012345678"}
    assert str(Read(tmp_path, path.read_bytes()).records[0].cost) == "0.123456789012345678"


@pytest.mark.parametrize("rows_at_once", [1, 3, 64])
def test_parquet_is_read_in_order_a_few_rows_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    monkeypatch.setattr(parquet_rows, "_FIRST_ROWS", rows_at_once)
    monkeypatch.setattr(parquet_rows, "_WINDOW_BYTES", 2000)
    path = tmp_path / "many.parquet"
    # Rows of 10 to 3,000 bytes, so that windows shrink and grow; a row group holds 2,048 of them.
    sql = "SELECT i AS id, repeat('x', CASE WHEN i % 700 < 20 THEN 3000 ELSE 10 END) AS text FROM range(5000) t(i)"
    duckdb.sql(f"COPY ({sql}) TO '{path}' (ROW_GROUP_SIZE 2048)")
    ((source,), _) = find_sources([str(path)])
    with source.content() as data:
        found = [json.loads(row[2]) for row in parquet_rows.parquet_rows(source, data) if not isinstance(row, BadLine)]
    assert [row["id"] for row in found] == list(range(5000))


def test_damaged_parquet_is_a_bad_line(tmp_path: Path) -> None:
    content = as_parquet(ROWS, tmp_path)
    found = Read(tmp_path, content[:-30])
    assert (found.ids, [bad.reason for bad in found.bad]) == ([], ["corrupt_parquet"])
    found = Read(tmp_path, gzip.compress(content)[:-100])
    assert (found.ids, [bad.reason for bad in found.bad]) == ([], ["corrupt_compression"])


# -- standard input


@pytest.mark.parametrize("container", ["array", "page", "csv", "parquet"])
def test_containers_come_through_a_pipe(container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {
        "array": as_array(ROWS),
        "page": as_page(ROWS),
        "csv": as_csv(ROWS),
        "parquet": as_parquet(ROWS, tmp_path),
    }[container]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    found = list(read_records(find_sources(["-"])[0], ReadOptions()))
    assert [item.id for item in found if isinstance(item, LogRecord)] == ["1", "2"]


def test_documents_belong_in_files_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "two.json"
    path.write_bytes(json.dumps([{"trajectory_format": "mini-swe-agent-1", "messages": []}] * 2).encode())
    (source,), _ = find_sources([str(path)])
    with pytest.raises(InputError, match="match no known format"):
        identify(source)
    with pytest.raises(InputError, match="a JSON array, but mini-swe-agent is one document a file"):
        identify(source, FORMATS["mini-swe-agent"])
