"""Log files as people have them: compressed, truncated, binary, with odd line ends, missing, given twice."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import zstandard

from cachesim.core.model import BadLine
from cachesim.errors import InputError
from cachesim.trace import stored
from cachesim.trace.open import Source, find_sources
from cachesim.trace.stored import digest_file

ROWS = [b'{"n":1}\n', b'{"n":2}\n', b'{"n":3}\n']
TEXT = b"".join(ROWS)


def write(path: Path, data: bytes) -> Source:
    path.write_bytes(data)
    return find_sources([str(path)])[0][0]


def lines(source: Source, **options: Any) -> list[Any]:
    return list(source.lines(**options))


def texts(source: Source) -> list[bytes]:
    return [item[2] for item in lines(source) if not isinstance(item, BadLine)]


def zstd(data: bytes, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True, **options).compress(data)


STORED = {
    "plain": TEXT,
    "gzip": gzip.compress(TEXT),
    "gzip members": gzip.compress(ROWS[0]) + gzip.compress(ROWS[1]) + gzip.compress(ROWS[2]),
    "padded gzip": gzip.compress(TEXT[:5]) + b"\0" * 7 + gzip.compress(TEXT[5:]) + b"\0" * 512,
    "zstd": zstd(TEXT),
    "zstd frames": zstd(TEXT[:11]) + zstd(TEXT[11:]),
    "zstd after a skippable frame": b"\x50\x2a\x4d\x18\x02\x00\x00\x00hi" + zstd(TEXT),
}


@pytest.mark.parametrize("kind", STORED)
@pytest.mark.parametrize("name", ["log", "log.gz", "log.zst"])
def test_compression_is_told_by_the_bytes_not_by_the_name(kind: str, name: str, tmp_path: Path) -> None:
    source = write(tmp_path / name, STORED[kind])
    assert lines(source) == [(1, 0, ROWS[0]), (2, 8, ROWS[1]), (3, 16, ROWS[2])]
    assert (source.size, source.sha256) == (len(STORED[kind]), hashlib.sha256(STORED[kind]).hexdigest())
    assert (source.size, source.sha256) == digest_file(tmp_path / name)


def test_a_file_of_many_chunks_is_hashed_and_counted(tmp_path: Path) -> None:
    data = b"".join(b'{"n":%d,"pad":"%s"}\n' % (n, b"x" * (n % 3000)) for n in range(3000))
    assert len(data) > 4 * stored.CHUNK_BYTES
    source = write(tmp_path / "log", data)
    progress: list[int] = []
    assert b"".join(item[2] for item in lines(source, progress=progress.append)) == data
    assert sum(progress) == len(data) == source.size == source.stored_bytes
    assert source.sha256 == hashlib.sha256(data).hexdigest()
    packed = write(tmp_path / "packed", gzip.compress(data, 1))
    assert b"".join(texts(packed)) == data


def test_the_digest_is_unknown_until_everything_was_read(tmp_path: Path) -> None:
    source = write(tmp_path / "log", TEXT)
    reading = source.lines()
    next(reading)
    reading.close()
    assert source.sha256 is None
    assert len(lines(source)) == 3
    assert source.sha256 is not None


@pytest.mark.parametrize("data", [b"", gzip.compress(b"", mtime=0), zstd(b""), b"\xef\xbb\xbf"])
def test_empty(data: bytes, tmp_path: Path) -> None:
    assert lines(write(tmp_path / "log", data)) == []


def test_line_ends_and_marks(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbf{"a":1}\r\n\n{"b":"\xe2\x80\xa8\x85\x0b\x0c\r"}\n \n{"c":3}'
    assert lines(write(tmp_path / "log", data)) == [
        (1, 3, b'{"a":1}\r\n'),
        (2, 12, b"\n"),
        (3, 13, b'{"b":"\xe2\x80\xa8\x85\x0b\x0c\r"}\n'),
        (4, 29, b" \n"),
        (5, 31, b'{"c":3}'),
    ]


def test_a_line_beyond_the_limit_is_one_bad_line(tmp_path: Path) -> None:
    source = write(tmp_path / "log", b"12345\n123456\n12\n1234567\r\n" + b"x" * 3_000_000 + b"\n1\n1234567")
    found = lines(source, max_line_bytes=5)
    assert [item for item in found if not isinstance(item, BadLine)] == [
        (1, 0, b"12345\n"),
        (3, 13, b"12\n"),
        (6, 3_000_026, b"1\n"),
    ]
    long = [item for item in found if isinstance(item, BadLine)]
    assert [(item.line, item.offset, item.reason) for item in long] == [
        (2, 6, "line_too_long"),
        (4, 16, "line_too_long"),
        (5, 25, "line_too_long"),
        (7, 3_000_028, "line_too_long"),
    ]
    assert [item.digest for item in long] == [
        hashlib.sha256(raw).hexdigest() for raw in (b"123456", b"1234567", b"x" * 3_000_000, b"1234567")
    ]
    assert "3000001 bytes" in long[2].message
    assert all(item.raw == b"" for item in long)


@pytest.mark.parametrize("cut", [1, 4, 9])
def test_truncated_gzip_delivers_what_is_before(cut: int, tmp_path: Path) -> None:
    source = write(tmp_path / "log.gz", gzip.compress(TEXT)[:-cut])
    *good, last = lines(source)
    assert [item[2] for item in good] == (ROWS if cut < 9 else ROWS[: len(good)])
    assert (last.reason, last.line) == ("corrupt_compression", len(good) + 1)
    assert source.sha256 is not None


def test_truncated_gzip_in_the_middle_of_a_line(tmp_path: Path) -> None:
    rows = [b'{"n":"%s"}\n' % hashlib.sha512(b"%d" % n).hexdigest().encode() for n in range(2000)]
    packed = gzip.compress(b"".join(rows))
    *good, last = lines(write(tmp_path / "log.gz", packed[: len(packed) // 2]))
    assert 900 < len(good) < 1100
    assert [item[2] for item in good] == rows[: len(good)]
    assert last.reason == "corrupt_compression"
    assert last.line == len(good) + 1
    assert last.offset == sum(map(len, rows[: len(good)]))
    assert rows[len(good)].startswith(last.raw)


def test_a_whole_last_line_before_the_damage_is_kept(tmp_path: Path) -> None:
    *good, last = lines(write(tmp_path / "log.gz", gzip.compress(TEXT[:-1])[:-4]))
    assert [item[2] for item in good] == [*ROWS[:2], ROWS[2][:-1]]
    assert last.reason == "corrupt_compression"


DAMAGED = {
    "truncated zstd": zstd(TEXT)[:-1],
    "zstd of another checksum": zstd(TEXT)[:-4] + b"abcd",
    "second zstd frame is none": zstd(TEXT) + b"junk",
    "second gzip member is none": gzip.compress(TEXT) + b"junk",
    "gzip magic only": b"\x1f\x8b",
    "gzip and junk": b"\x1f\x8b" + b"junk" * 20,
    "zstd magic only": b"\x28\xb5\x2f\xfd",
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_is_one_bad_line_at_the_end(kind: str, tmp_path: Path) -> None:
    *good, last = lines(write(tmp_path / "log", DAMAGED[kind]))
    assert last.reason == "corrupt_compression"
    assert [item[2] for item in good] == ROWS[: len(good)]


def test_a_stream_out_of_all_proportion_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "BOMB_FREE_BYTES", 100_000)
    monkeypatch.setattr(stored, "BOMB_RATIO", 50)
    bomb = zstd(ROWS[0] * 1_000_000)
    *good, last = lines(write(tmp_path / "log", bomb))
    assert last.reason == "decompression_limit"
    assert len(good) * len(ROWS[0]) < max(100_000, 50 * len(bomb))
    small = gzip.compress(ROWS[0] * 10_000)  # 80,000 bytes: within what is free
    assert len(lines(write(tmp_path / "small", small))) == 10_000


NOT_TEXT = {
    "UTF-16 with a mark": (TEXT.decode().encode("utf-16"), "utf16"),
    "UTF-16, big endian": (TEXT.decode().encode("utf-16-be"), "utf16"),
    "UTF-16, little endian": (TEXT.decode().encode("utf-16-le"), "utf16"),
    "UTF-32": (TEXT.decode().encode("utf-32"), "utf16"),
    "machine code": (b"\x7fELF\x02\x01\x01\x00" * 1000, "binary"),
    "zip": (b"PK\x03\x04\n\n\n\n", "binary"),
    "xz": (b"\xfd7zXZ\x00\n\n\n", "binary"),
    "Parquet": (b"PAR1\x15\x04\n\n\n", "binary"),
    "zeros, compressed": (gzip.compress(b"\x00\n" * 500), "utf16"),
}


@pytest.mark.parametrize("kind", NOT_TEXT)
def test_what_is_no_text_is_one_bad_line(kind: str, tmp_path: Path) -> None:
    data, reason = NOT_TEXT[kind]
    (only,) = lines(write(tmp_path / "log", data))
    assert (only.reason, only.line, only.offset) == (reason, 1, 0)
    assert only.digest == hashlib.sha256(data).hexdigest()
    assert "UTF-8" in only.message


def test_missing_and_directories_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        find_sources([str(tmp_path / "missing.jsonl")])
    with pytest.raises(InputError, match=r"is a directory.*\*\.jsonl"):
        find_sources([str(tmp_path)])
    with pytest.raises(InputError, match="no file matches"):
        find_sources([str(tmp_path / "*.jsonl")])
    with pytest.raises(InputError, match="cannot be read"):
        find_sources([str(tmp_path / "x") + "\0"])
    with pytest.raises(InputError, match="cannot be read"):
        digest_file(tmp_path / "missing")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(TEXT)
    (tmp_path / "log").chmod(0)
    with pytest.raises(InputError, match="permission"):
        find_sources([str(tmp_path / "log")])


def test_a_file_that_vanishes_is_an_input_error(tmp_path: Path) -> None:
    source = write(tmp_path / "log", TEXT)
    (tmp_path / "log").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        lines(source)


def test_patterns_expand_sorted_in_the_order_of_the_arguments(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "z.jsonl", "[x].jsonl", "sub/c.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(TEXT)
    (tmp_path / "d.jsonl").mkdir()
    sources, remarks = find_sources(
        [str(tmp_path / name) for name in ("z.jsonl", "*.jsonl", "[x].jsonl", "**/c.jsonl")]
    )
    assert [Path(source.name).name for source in sources] == ["z.jsonl", "[x].jsonl", "a.jsonl", "b.jsonl", "c.jsonl"]
    assert [source.file_no for source in sources] == [0, 1, 2, 3, 4]
    assert len(remarks) == 2
    assert all("read once" in remark for remark in remarks)


def test_the_same_file_by_another_name_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(TEXT)
    (tmp_path / "link").symlink_to("log")
    sources, remarks = find_sources([str(tmp_path / "log"), str(tmp_path / "link"), "-", "-"])
    assert [source.name for source in sources] == [str(tmp_path / "log"), "<stdin>"]
    assert len(remarks) == 2


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(TEXT, mtime=0))))
    ((source,), _) = find_sources(["-"])
    assert texts(source) == ROWS
    assert source.sha256 == hashlib.sha256(gzip.compress(TEXT, mtime=0)).hexdigest()
    assert (source.rereadable, source.stored_bytes) == (False, None)
    with pytest.raises(InputError, match="only once"):
        lines(source)


def test_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def feed() -> None:
        with path.open("wb", buffering=0) as pipe:
            for byte in TEXT:
                pipe.write(bytes([byte]))

    feeder = threading.Thread(target=feed)
    ((source,), _) = find_sources([str(path)])
    feeder.start()
    try:
        assert texts(source) == ROWS
    finally:
        feeder.join()
    assert not source.rereadable
