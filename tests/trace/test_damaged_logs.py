"""Any log, damaged anywhere: records and bad lines come of it, never another error, and the undamaged part stays."""

from __future__ import annotations

import gzip
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cachesim.core.model import BadLine, LogRecord
from cachesim.errors import InputError, UsageError
from cachesim.trace.formats import FORMATS
from cachesim.trace.open import find_sources
from cachesim.trace.reader import ReadFacts, ReadOptions, read_records

LOGS = Path(__file__).parents[2] / "fixtures" / "logs"
PIECES = (
    b"", b"\n", b"\0", b"\xff", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"null", b"1e999", b"\xef\xbb\xbf",
    b"\xed\xa0\x80", b"\r\n", b'"body":', b"\xf0\x9f\x98\x80",
)  # fmt: skip
OPTIONS: dict[str, Any] = {"principal": "p", "start_us": 0, "interval_us": 1}


def plain(path: Path) -> bytes:
    """A fixture's content, decompressed."""
    raw = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(raw)
    return zstandard.ZstdDecompressor().decompressobj().decompress(raw) if path.suffix == ".zst" else raw


FILES = {
    f"{folder.name}/{path.name}": plain(path)
    for folder in sorted(LOGS.iterdir())
    for path in sorted(folder.iterdir())
    if path.name != "expected.json"
}
STORED = {"plain": bytes, "gzip": gzip.compress, "zstd": zstandard.compress}


def read(content: bytes, **options: Any) -> tuple[list[LogRecord], list[BadLine], ReadFacts]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "log").write_bytes(content)
        sources, _ = find_sources([str(Path(folder) / "log")])
        facts = ReadFacts()
        items = list(read_records(sources, ReadOptions(**OPTIONS, **options), facts=facts))
    records = [item for item in items if isinstance(item, LogRecord)]
    return records, [item for item in items if isinstance(item, BadLine)], facts


def said(record: LogRecord) -> tuple[object, ...]:
    """What is compared of a record: all but the id, which may hold the name of the file."""
    return (record.line, record.offset, record.at_us, record.principal, record.status, record.usage, record.body)


@given(st.sampled_from(sorted(FILES)), st.sampled_from(sorted(STORED)), st.randoms(use_true_random=False))
def test_damage_is_told_and_costs_only_what_it_hit(name: str, stored: str, chance: random.Random) -> None:
    content = FILES[name]
    place = chance.randrange(len(content) + 1)
    damaged = content[:place] + chance.choice(PIECES) + content[place + chance.choice((0, 1, 1, 5, 300)) :]
    forced = chance.choice((None, name.split("/")[0]))
    try:
        records, bad, facts = read(STORED[stored](damaged), log_format=forced)
    except (InputError, UsageError):
        return  # refused in words
    assert all(record.body is not None and record.at_us is not None for record in records)
    assert all(item.reason and item.message and len(item.digest) == 64 for item in bad)
    (file,) = facts.files
    assert (file.records, file.bad_lines) == (len(records), len(bad))
    assert len({(item.line, item.offset) for item in bad}) == len(bad)
    known = FORMATS.get(file.log_format or "")
    if known is not None and known.kind == "lines" and not known.joins:
        before, _, _ = read(content, log_format=forced)
        line = content.count(b"\n", 0, place) + 1
        untouched = [record for record in before if record.line < line]
        assert [said(r) for r in records if r.line < line] == [said(r) for r in untouched]


@given(st.sampled_from(sorted(FILES)), st.sampled_from(["gzip", "zstd"]), st.randoms(use_true_random=False))
def test_damage_to_the_compressed_bytes_ends_the_log_with_a_bad_line(
    name: str, stored: str, chance: random.Random
) -> None:
    """What is not the end of a stream says so; what still decompresses is read like any other log."""
    packed = bytearray(STORED[stored](FILES[name]))
    if chance.random() < 0.5:
        del packed[chance.randrange(4, len(packed)) :]
    else:
        packed[chance.randrange(4, len(packed))] ^= 1 << chance.randrange(8)
    try:
        records, bad, _ = read(bytes(packed), log_format=name.split("/")[0])
    except (InputError, UsageError):
        return  # refused in words
    whole, _, facts = read(FILES[name], log_format=name.split("/")[0])
    left_out = facts.files[0].left_out.total()  # a bit may make a request of what was none
    assert bad or len(records) <= len(whole) + left_out


@given(st.binary(max_size=300), st.sampled_from([None, *FORMATS]))
def test_any_bytes_are_a_log_or_an_error_with_words(content: bytes, forced: str | None) -> None:
    try:
        _, bad, facts = read(content, log_format=forced)
    except (InputError, UsageError):
        return
    bare = content.strip(b"\xef\xbb\xbf \t\r\n\v\f\0")
    left_out = facts.files[0].left_out
    assert bad or not bare or forced == "cachesim" or left_out or json.loads(bare) == []


@pytest.mark.parametrize("name", sorted(FILES))
def test_each_fixture_is_whole(name: str) -> None:
    """The damage above would prove nothing on logs of which nothing is read."""
    records, _, facts = read(FILES[name])
    assert records or facts.files[0].answers
