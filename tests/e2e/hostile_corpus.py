"""A generated corpus of bad logs: what each holds, how the program ends on it, and what it must still count.

Every log is written from these rules into the test's folder; nothing hostile is stored in the project.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import socket
import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import zstandard
from e2e_support import body, lines, usage
from worked_log import SYSTEM, at

LOG: Final = "log.jsonl"
GOOD: Final[dict[str, Any]] = {
    "id": "good", "at": at("10:00:00"), "principal": "p", "body": body(SYSTEM), "usage": usage(10, 1),
}  # fmt: skip


def good(name: str, time: str = "10:00:00", **fields: Any) -> bytes:
    """One good line of the corpus."""
    return lines([{**GOOD, "id": name, "at": at(time), **fields}])


FIRST, LAST = good("first"), good("last", "10:01:00")


@dataclass(frozen=True)
class Case:
    """One bad input.

    write: puts the log into a folder; arguments: of `cachesim replay`; code: how it ends; requests: counted in spite of
    everything; reasons: reason code -> bad lines; said: part of the message where nothing is usable;
    problems: what else the report says of the log.
    """

    write: Callable[[Path], object]
    requests: int
    reasons: Mapping[str, int] = field(default_factory=dict)
    code: int = 0
    said: str = ""
    problems: Mapping[str, int] = field(default_factory=dict)
    arguments: tuple[str, ...] = (LOG,)


def stored(content: bytes) -> Callable[[Path], object]:
    """A log of just these bytes."""
    return lambda folder: (folder / LOG).write_bytes(content)


def among(bad: bytes, reason: str, count: int = 1) -> Case:
    """`bad` between two good lines: it costs itself and nothing else."""
    return Case(stored(FIRST + bad + LAST), 2, {reason: count})


def harmless(content: bytes, requests: int, **problems: int) -> Case:
    """Odd, and yet nothing is lost."""
    return Case(stored(content), requests, problems=problems)


def useless(content: bytes, said: str) -> Case:
    """Nothing in it can be used."""
    return Case(stored(content), 0, code=65, said=said)


def refused(arguments: tuple[str, ...], said: str, write: Callable[[Path], object] = lambda folder: None) -> Case:
    """An argument that is no log."""
    return Case(write, 0, code=2, said=said, arguments=arguments)


def envelope(old: bytes, new: bytes) -> bytes:
    """A good line in which `new` stands for `old`."""
    line = good("bad", "10:00:30")
    assert old in line
    return line.replace(old, new, 1)


def with_body(raw: bytes) -> bytes:
    """A line whose body is `raw`, as it stands."""
    return envelope(json.dumps(GOOD["body"]).encode(), raw)


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return opening * depth + closing * depth


def cut_in_half(packed: bytes) -> bytes:
    return packed[: len(packed) // 2]


def many(count: int) -> bytes:
    """`count` good lines that do not compress away to nothing."""
    return b"".join(good(f"{n}-{os.urandom(40).hex()}", f"10:{n // 60:02}:{n % 60:02}") for n in range(count))


def encodings() -> dict[str, Case]:
    text = (FIRST + LAST).decode()
    bad_name = envelope(b'"bad"', '"caf\u00e9"'.encode("latin-1"))
    return {
        "utf-16 with a mark": useless(text.encode("utf-16"), "utf16"),
        "utf-16 little endian": useless(text.encode("utf-16-le"), "utf16"),
        "utf-16 big endian": useless(text.encode("utf-16-be"), "utf16"),
        "utf-32": useless(text.encode("utf-32"), "utf16"),
        "ebcdic": useless(text.encode("cp037") + b"\n", "not_json"),
        "base64": useless(base64.encodebytes(text.encode()), "not_json"),
        "latin-1 in the envelope": among(bad_name, "invalid_utf8"),
        "gbk in the envelope": among(envelope(b'"bad"', '"\u4e2d"'.encode("gbk")), "invalid_utf8"),
        "overlong slash": among(envelope(b'"bad"', b'"\xc0\xaf"'), "invalid_utf8"),
        "surrogates as cesu-8": among(envelope(b'"bad"', b'"\xed\xa0\xbd\xed\xb8\x80"'), "invalid_utf8"),
        "a code point beyond unicode": among(envelope(b'"bad"', b'"\xf5\x80\x80\x80"'), "invalid_utf8"),
        "a raw NUL in a string": among(envelope(b'"bad"', b'"b\0d"'), "not_json"),
        "a block of zeros after a crash": among(bytes(512) + b"\n", "not_json"),
        "a raw escape in a string": among(envelope(b'"bad"', b'"b\x1b[31md"'), "not_json"),
        "a bad byte in the body": Case(stored(FIRST + with_body(b'{"model":"m","messages":["\xff"]}') + LAST), 3),
        "a mark at the start": harmless(b"\xef\xbb\xbf" + FIRST + LAST, 2),
        "two marks at the start": Case(stored(b"\xef\xbb\xbf" * 2 + FIRST + LAST + good("more")), 2, {"not_json": 1}),
        "a mark in the middle": Case(stored(FIRST + b"\xef\xbb\xbf" + LAST), 1, {"not_json": 1}),
        "U+2028 in a string": harmless(envelope(b'"bad"', '"b\u2028d"'.encode()), 1),
        "NEL and vertical tab between": among(b"\x0b\x85\n", "not_json"),
        "windows line ends": harmless((FIRST + LAST).replace(b"\n", b"\r\n"), 2),
        "old mac line ends": useless((FIRST + LAST).replace(b"\n", b"\r"), "truncated"),
        "blank lines": harmless(b"\n\n \n\t\n" + FIRST + b"\r\n" * 50 + LAST + b"\n" * 99, 2),
    }


def truncation() -> dict[str, Case]:
    packed, framed = gzip.compress(many(300)), zstandard.compress(many(3000))
    wrong_sum = bytearray(gzip.compress(FIRST + LAST))
    wrong_sum[-8] ^= 1
    checked = bytearray(zstandard.ZstdCompressor(write_checksum=True).compress(FIRST + LAST))
    checked[-1] ^= 1
    return {
        "empty": useless(b"", "nothing in it"),
        "only blanks": useless(b" \n" * 3000, "nothing in it"),
        "an empty gzip": useless(gzip.compress(b""), "nothing in it"),
        "the head of a gzip": useless(gzip.compress(FIRST)[:10], "corrupt_compression"),
        "only a skippable frame": useless(b"\x50\x2a\x4d\x18\x04\0\0\0abcd", "nothing in it"),
        "no line end at the end": harmless(FIRST + LAST[:-1], 2),
        "cut in a string": Case(stored(FIRST + LAST[:40]), 1, {"truncated": 1}),
        "cut in a character": Case(
            stored(FIRST + envelope(b'"bad"', '"\U0001f600"'.encode()).split(b"\x98")[0]), 1, {"truncated": 1}
        ),
        "cut in an escape": Case(stored(FIRST + LAST[:9] + b"\\u00"), 1, {"truncated": 1}),
        "cut after a comma, then a restart": among(LAST[: LAST.index(b",") + 1] + b"\n", "not_json"),
        "two records on a line": among(good("a")[:-1] + good("b"), "not_json"),
        "a gzip with a wrong sum": useless(bytes(wrong_sum), "corrupt_compression"),
        "a zstd with a wrong sum": useless(bytes(checked), "corrupt_compression"),
        "zeros after a gzip": harmless(gzip.compress(FIRST + LAST) + bytes(4096), 2),
        "rubbish after a gzip": Case(stored(gzip.compress(FIRST + LAST) + b"rubbish"), 2, {"corrupt_compression": 1}),
        "gzips end to end": harmless(gzip.compress(FIRST) + gzip.compress(b"") + gzip.compress(LAST), 2),
        "a good gzip and a half one": Case(
            stored(gzip.compress(FIRST) + gzip.compress(LAST)[:-9]), 2, {"corrupt_compression": 1}
        ),
        "half a deflate stream": useless(cut_in_half(zlib.compress(many(300))), ""),
        "a gzip in a gzip": useless(gzip.compress(gzip.compress(FIRST)), "binary"),
        "a header of gzip and text": useless(b"\x1f\x8b" + FIRST, ""),
        "half a gzip": Case(stored(cut_in_half(packed)), -1, {"corrupt_compression": 1}),
        "half a zstd": Case(stored(cut_in_half(framed)), -1, {"corrupt_compression": 1}),
    }


def nesting() -> dict[str, Case]:
    deep = 200_000
    return {
        "a body too deep for the classifier": harmless(
            FIRST + with_body(b'{"model":"m","a":' + nested(200) + b"}") + LAST, 3
        ),
        "a deep body": among(with_body(b'{"model":"m","a":' + nested(deep) + b"}"), "too_deep"),
        "deep objects in a body": among(
            with_body(b'{"model":"m","a":' + nested(deep, b'{"a":[', b"]}") + b"}"), "too_deep"
        ),
        "a deep content": among(with_body(b'{"model":"m","messages":[{"content":' + nested(deep) + b"}]}"), "too_deep"),
        "a deep envelope": among(envelope(b'"bad"', nested(deep)), "bad_field:id"),
        "a deep usage": among(envelope(b'"completion_tokens": 1', b'"a": ' + nested(deep)), "too_deep"),
        "deep tags": among(
            envelope(b'"principal"', b'"tags": {"a": ' + nested(deep) + b'}, "principal"'), "bad_field:tags"
        ),
        "deep and never closed": among(b"[" * deep + b"\n", "not_an_object"),
        "deep objects never closed": among(b'{"a":' * deep + b"\n", "too_deep"),
        "only brackets": useless(nested(deep), ""),
    }


def giants() -> dict[str, Case]:
    digits = b"9" * 100_000
    names = b",".join(b'"k%d":%d' % (n, n) for n in range(100_000))
    return {
        "a number of 100,000 digits": among(envelope(b'"completion_tokens": 1', b'"a": ' + digits), "bad_field:usage"),
        "a time of 100,000 digits": among(
            envelope(b'"principal"', b'"duration_ms": ' + digits + b', "x"'), "bad_field:duration_ms"
        ),
        "an exponent of 999,999,999": among(
            envelope(b'"completion_tokens": 1', b'"a": 1e999999999'), "bad_field:usage"
        ),
        "100,000 digits in the body": Case(
            stored(FIRST + with_body(b'{"model":"m","seed":' + digits + b"}") + LAST), 3
        ),
        "100,000 fields": harmless(FIRST + envelope(b'"bad"', b'"bad",' + names) + LAST, 3),
        "100,000 tags": among(envelope(b'"principal"', b'"tags":{' + names + b'},"principal"'), "bad_field:tags"),
        "100,000 members of a body": harmless(FIRST + with_body(b'{"model":"m",' + names + b"}") + LAST, 3),
        "100,000 messages": harmless(
            FIRST + with_body(b'{"model":"m","messages":[' + b",".join([b'{"role":"user"}'] * 100_000) + b"]}"), 2
        ),
        "a model's name of a million letters": harmless(FIRST + with_body(b'{"model":"' + b"m" * 10**6 + b'"}'), 2),
        "a principal of a million letters": harmless(FIRST + envelope(b'"p"', b'"' + b"p" * 10**6 + b'"'), 2),
        "a string of escapes": harmless(FIRST + envelope(b'"bad"', b'"' + b"\\u0041" * 200_000 + b'"'), 2),
        "the same key twice": harmless(FIRST + envelope(b'"bad"', b'"one", "id": "two"'), 2),
    }


def bombs() -> dict[str, Case]:
    """More than a GiB from some KB. gzip cannot reach the limit of 2000 to 1; what it holds is then one long line."""

    def zeros(byte: bytes, gib: float) -> bytes:
        stream = zstandard.ZstdCompressor(level=1).compressobj()
        piece = byte * (1 << 24)
        return b"".join(stream.compress(piece) for _ in range(int(gib * 64))) + stream.flush()

    return {
        "a zstd bomb": Case(
            stored(zstandard.compress(FIRST) + zeros(b"x", 1.2)), 1, {"line_too_long": 1, "decompression_limit": 1}
        ),
        "a line of 512 MiB": Case(
            stored(zstandard.compress(FIRST) + zeros(b"x", 0.5) + zstandard.compress(b"\n" + LAST)),
            2,
            {"line_too_long": 1},
        ),
    }


def files() -> dict[str, Case]:
    def fifo(folder: Path) -> None:
        os.mkfifo(folder / LOG)
        threading.Thread(target=(folder / LOG).write_bytes, args=(FIRST + b"junk\n" + LAST,), daemon=True).start()

    def listening(folder: Path) -> None:
        here = os.open(".", os.O_RDONLY)
        os.chdir(folder)  # the path of a socket has room for some 100 bytes
        try:
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(LOG)
        finally:
            os.fchdir(here)
            os.close(here)

    def loop(folder: Path) -> None:
        (folder / LOG).symlink_to(folder / LOG)

    def locked(folder: Path) -> None:
        (folder / LOG).write_bytes(FIRST)
        (folder / LOG).chmod(0)

    cases = {
        "a directory": refused(("logs",), "is a directory", lambda folder: (folder / "logs").mkdir()),
        "no file": refused(("none.jsonl",), "no such file"),
        "an empty name": refused(("",), ""),
        "a pattern without files": refused(("*.jsonl",), "no file matches"),
        "a name with a NUL": refused(("a\0b",), "cannot be"),
        "a name of 5,000 letters": refused(("n" * 5000,), "cannot be"),
        "a file under a file": refused((f"{LOG}/x",), "cannot be", stored(FIRST)),
        "a link to nothing": refused((LOG,), "no such file", lambda folder: (folder / LOG).symlink_to("gone")),
        "a link to itself": refused((LOG,), "cannot be", loop),
        "a socket": refused((LOG,), "cannot be read", listening),
        "the null device": Case(lambda folder: None, 0, code=65, said="nothing in it", arguments=("/dev/null",)),
        "a FIFO": Case(fifo, 2, {"not_json": 1}),
        "the same file twice": Case(stored(FIRST + LAST), 2, arguments=(LOG, f"./{LOG}")),
        "a copy of the file": Case(
            lambda folder: [(folder / name).write_bytes(FIRST + LAST) for name in (LOG, "copy.jsonl")],
            2,
            problems={"duplicates": 2},
            arguments=(LOG, "copy.jsonl"),
        ),
        "a good file beside a binary one": Case(
            lambda folder: [(folder / name).write_bytes(data) for name, data in ((LOG, FIRST), ("b", bytes(9999)))],
            1,
            {"binary": 1},
            arguments=(LOG, "b"),
        ),
    }
    if os.geteuid() != 0:  # nothing is forbidden to root
        cases["a file one may not read"] = refused((LOG,), "no permission", locked)
    return cases


def clocks_and_ids() -> dict[str, Case]:
    def timed(value: object, name: str = "bad") -> bytes:
        return lines([{**GOOD, "id": name, "at": value}])

    orders = b"".join(good(f"{n}", f"10:00:{59 - n:02}") for n in range(60))
    return {
        "written backwards": harmless(orders, 60),
        "a step back of a year": harmless(FIRST + timed("2025-03-01T10:00:00Z") + LAST, 3),
        "a step forward to 9999": harmless(FIRST + timed("9999-12-31T23:59:59Z") + LAST, 3),
        "the zero time of Go": harmless(FIRST + timed("0001-01-01T00:00:00Z") + LAST, 3),
        "the year 10000": among(timed("10000-01-01T00:00:00Z"), "bad_field:at"),
        "the 30th of February": among(timed("2026-02-30T10:00:00Z"), "bad_field:at"),
        "the 61st second": among(timed("2026-03-01T10:00:61Z"), "bad_field:at"),
        "an offset of 99 hours": among(timed("2026-03-01T10:00:00+99:00"), "bad_field:at"),
        "seconds, then milliseconds": harmless(timed(1772359200, "s") + timed(1772359201000, "ms"), 2),
        "a time that is not a number": among(timed("NaN"), "bad_field:at"),
        "all at once": harmless(b"".join(good(f"{n}") for n in range(50)), 50),
        "a response before its request": among(good("bad", duration_ms=-5), "bad_field:duration_ms"),
        "a response that took 300 years": among(good("bad", duration_ms=10**13), "bad_field:duration_ms"),
        "a line twice": harmless(FIRST + FIRST + LAST, 2, duplicates=1),
        "a line a thousand times": harmless(FIRST * 1000 + LAST, 2, duplicates=999),
        "one id, two contents": harmless(FIRST + good("first", "10:00:30") + LAST, 3, repeated_ids=1),
        "an empty id": harmless(FIRST + good("") + LAST, 3),
    }


def containers() -> dict[str, Case]:
    """Arrays, CSV and Parquet: what is cut or crooked costs itself there, too."""
    rows = [FIRST.rstrip(), LAST.rstrip()]
    array = b"[" + b",\n".join(rows) + b"]"
    header = b"id,at,principal,body,usage\n"

    def cells(name: str, time: str = "10:00:00", **changed: str) -> bytes:
        values = {**GOOD, "id": name, "at": at(time)} | changed
        texts = [value if isinstance(value, str) else json.dumps(value) for value in values.values()]
        return (",".join('"' + text.replace('"', '""') + '"' for text in texts) + "\n").encode()

    table = header + cells("first") + cells("last", "10:01:00")

    def parquet(folder: Path, keep: slice = slice(None), **columns: object) -> None:
        import polars as pl

        values = {name: [v if isinstance(v, str) else json.dumps(v)] * 2 for name, v in GOOD.items()}
        values |= {"id": ["first", "last"], **columns}  # type: ignore[dict-item]
        pl.DataFrame(values).write_parquet(folder / LOG)
        (folder / LOG).write_bytes((folder / LOG).read_bytes()[keep])

    return {
        "an array": harmless(array, 2),
        "an array on one line": harmless(array.replace(b"\n", b""), 2),
        "an array in an object": harmless(b'{"next": null, "data": ' + array + b', "total": 2}', 2),
        "an array with a mark": harmless(b"\xef\xbb\xbf" + array, 2),
        "a cut array": Case(stored(array[:-30]), 1, {"truncated": 1}),
        "an array without its end": Case(stored(array[:-1]), 2, {"truncated": 1}),
        "an array that goes on": Case(stored(array + b" and more"), 2, {"not_json": 1}),
        "an array with a number in it": Case(stored(array[:-1] + b",7]"), 2, {"not_an_object": 1}),
        "an array with an array in it": Case(
            stored(array[:-1] + b",[" + FIRST.rstrip() + b"]]"), 2, {"not_an_object": 1}
        ),
        "an empty array": useless(b"[]", "nothing in it"),
        "an array of empty objects": useless(b"[{}, {}]", ""),
        "two arrays": harmless(b"[" + rows[0] + b"]\n[" + rows[1] + b"]", 2),
        "half a gzip of an array": Case(
            stored(cut_in_half(gzip.compress(b"[" + b",".join(many(300).splitlines()) + b"]"))),
            -1,
            {"corrupt_compression": 1},
        ),
        "csv": harmless(table, 2),
        "csv with windows line ends": harmless(table.replace(b"\n", b"\r\n"), 2),
        "csv with a mark": harmless(b"\xef\xbb\xbf" + table, 2),
        "csv cut in a quote": Case(stored(table[:-20]), 1, {"truncated": 1}),
        "csv with a row too long": Case(stored(table + b"1,2,3,4,5,6,7\n"), 2, {"bad_csv": 1}),
        "csv with a row too short": Case(stored(table + b"1,2\n"), 2, {"bad_csv": 1}),
        "csv with a body that is no JSON": Case(stored(table + cells("bad", body="{")), 3),
        "csv with a bad byte": Case(
            stored(table + cells("b\u00e9").decode().encode("latin-1")), 2, {"invalid_utf8": 1}
        ),
        "csv with only a header": useless(header, ""),
        "csv with a field of 32 MB": harmless(table + cells("big", principal="s" * (32 << 20)), 3),
        "parquet": Case(parquet, 2),
        "a cut parquet": Case(lambda folder: parquet(folder, slice(0, -20)), 0, code=65, said="parquet"),
        "a parquet without its start": Case(lambda folder: parquet(folder, slice(4, None)), 0, code=65, said=""),
        "parquet with a bad time": Case(
            lambda folder: parquet(folder, at=[at("10:00:00"), "soon"]), 1, {"bad_field:at": 1}
        ),
    }


GROUPS: Final = (encodings, truncation, nesting, giants, bombs, files, clocks_and_ids, containers)
CORPUS: Final[dict[str, Case]] = {f"{g.__name__}: {name}": case for g in GROUPS for name, case in g().items()}
