"""Same log, same answer: however it is stored, cut, ordered or repeated, and from whichever database."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import zstandard
from e2e_support import Cli, body, lines, text, usage, words
from worked_log import LOG, RECORDS, TARIFF

Options = tuple[str, ...]


@pytest.fixture
def options(tmp_path: Path, tokenizer: Path) -> Options:
    (tmp_path / "log.jsonl").write_bytes(LOG)
    (tmp_path / "prices.toml").write_text(TARIFF)
    return ("--tokenizer", str(tokenizer), "--tariff", "prices.toml", "--policy", "dwctl-8.63", "--policy",
            "dwctl-10.13")  # fmt: skip


def answer(cli: Cli, *args: object, stdin: bytes | None = None) -> list[dict[str, Any]]:
    """Every request of a replay of its own, without what names the run."""
    result = cli("replay", *args, "--db", "answer.duckdb", stdin=stdin)
    assert result.code == 0, result.err
    rows = cli("report", "--by", "request", "--db", "answer.duckdb", "--format", "json").rows()
    return [{k: v for k, v in row.items() if k != "run"} for row in rows]


def test_the_same_log_again_is_not_read_again(cli: Cli, options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    first = cli("replay", "log.jsonl", *options, "--format", "json")

    def read(*_: object, **__: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr("cachesim.pipeline.find_formats", read)
    again = cli("replay", "log.jsonl", *options, "--format", "json")
    assert again == first
    other = cli("replay", "log.jsonl", *options, "--markers", "automatic", "--format", "json").json()
    assert [run["trace"] for run in other["runs"]] == [run["trace"] for run in first.json()["runs"]]
    assert other["rows"] != first.json()["rows"]
    monkeypatch.undo()


def test_what_decides_the_tokens_is_read_again(cli: Cli, options: Options, tmp_path: Path) -> None:
    trace = cli("replay", "log.jsonl", *options, "--format", "json").json()["runs"][0]["trace"]
    for change in (("--tokenizer", "default"), ("--principal", "x"), ("--since", "2026-03-02")):
        other = cli("replay", "log.jsonl", *options, *change, "--format", "json").json()
        assert other["runs"][0]["trace"] != trace
    (tmp_path / "log.jsonl").write_bytes(LOG.replace(b"a1", b"A1"))  # the same size
    assert cli("replay", "log.jsonl", *options, "--format", "json").json()["runs"][0]["trace"] != trace


def test_json_is_the_same_bytes_from_every_database(cli: Cli, options: Options) -> None:
    made = [cli("replay", "log.jsonl", *options, "--db", f"{db}.duckdb", "--format", "json").out for db in "aab"]
    assert made[0] == made[1] == made[2]
    reports = [cli("report", "--by", "request", "--db", f"{db}.duckdb", "--format", "json").out for db in "ab"]
    assert reports[0] == reports[1]
    shown = [cli("runs", "show", "--db", f"{db}.duckdb", "--format", "json").out for db in "ab"]
    assert shown[0] == shown[1]
    dry = cli("replay", "log.jsonl", *options, "--dry-run", "--format", "json")
    assert dry.out == made[0]


STORED: dict[str, Callable[[bytes], bytes]] = {
    "log.jsonl.gz": gzip.compress,
    "log.jsonl.zst": zstandard.compress,
    "misnamed.gz": zstandard.compress,
    "no-name-at-all": gzip.compress,
    "two-members.gz": lambda log: gzip.compress(log[:1000]) + gzip.compress(log[1000:]),
    "crlf.jsonl": lambda log: log.replace(b"\n", b"\r\n"),
    "bom.jsonl": lambda log: b"\xef\xbb\xbf" + log,
    "no-last-newline.jsonl": lambda log: log.removesuffix(b"\n"),
    "blank-lines.jsonl": lambda log: b"\n\n" + log.replace(b"\n", b"\n  \n"),
}


@pytest.mark.parametrize("name", STORED)
def test_every_way_of_storing_a_log_gives_the_same_answer(
    cli: Cli, options: Options, tmp_path: Path, name: str
) -> None:
    plain = answer(cli, "log.jsonl", *options)
    (tmp_path / name).write_bytes(STORED[name](LOG))
    assert answer(cli, name, *options) == plain
    assert cli("check", name, "--strict").code == 0


def test_pipes_parts_and_any_order_give_the_same_answer(cli: Cli, options: Options, tmp_path: Path) -> None:
    plain = answer(cli, "log.jsonl", *options)
    assert answer(cli, "-", *options, stdin=LOG) == plain
    assert answer(cli, "-", *options, stdin=gzip.compress(LOG)) == plain
    first, second = lines(RECORDS[:6]), lines([*RECORDS[6:], RECORDS[0]])
    (tmp_path / "part-1.jsonl").write_bytes(first)
    (tmp_path / "part-2.jsonl.gz").write_bytes(gzip.compress(second))
    assert answer(cli, "part-*", *options) == plain
    assert answer(cli, "part-2.jsonl.gz", "part-1.jsonl", *options) == plain
    shuffled = RECORDS.copy()
    random.Random(3).shuffle(shuffled)
    (tmp_path / "shuffled.jsonl").write_bytes(lines(shuffled))
    expected = {json.dumps(row, sort_keys=True) for row in plain}
    # r3 and r4 arrive at one instant (other principals, so only their places may change)
    assert {json.dumps(row, sort_keys=True) for row in answer(cli, "shuffled.jsonl", *options)} == expected
    (tmp_path / "reversed.jsonl").write_bytes(lines(reversed(RECORDS)))
    assert {json.dumps(row, sort_keys=True) for row in answer(cli, "reversed.jsonl", *options)} == expected


def test_a_pipe_or_a_quarantine_may_repeat_what_is_known(cli: Cli, options: Options, tmp_path: Path) -> None:
    plain = answer(cli, "log.jsonl", *options)
    assert answer(cli, "-", *options, stdin=LOG) == plain
    assert answer(cli, "-", *options, stdin=LOG) == plain
    assert answer(cli, "log.jsonl", *options, "--bad-lines", "bad.jsonl") == plain
    assert (tmp_path / "bad.jsonl").read_bytes() == b""


def test_one_file_named_twice_is_read_once(cli: Cli, options: Options) -> None:
    result = cli("replay", "log.jsonl", "./log.jsonl", *options, "--format", "json")
    assert "read once" in result.err
    assert result.json()["problems"]["duplicates"] == 1


START = datetime(2026, 3, 1, tzinfo=UTC)


def random_log(seed: int, count: int = 60) -> list[dict[str, Any]]:
    """Growing conversations of two principals, gaps around the TTLs, long answers that overlap, failures."""
    chance = random.Random(seed)
    talks: list[list[tuple[str, Any]]] = [[("system", text(words(f"s{i}-", 10), "1h"))] for i in range(3)]
    second, records = 0.0, []
    for i in range(count):
        second += chance.choice([0, 0.5, 1, 30, 120, 299, 300, 301, 1800])
        number = chance.randrange(3)
        talk = talks[number]
        talk.append(("user" if len(talk) % 2 else "assistant", text(words(f"t{i}-", chance.randrange(1, 8)))))
        asked = [*talk[:-1], (talk[-1][0], text(talk[-1][1][0]["text"], chance.choice(["5m", "5m", "1h"])))]
        moment = START + timedelta(seconds=second)
        records.append(
            {
                "id": f"q{i}",
                "at": moment.isoformat().replace("+00:00", "Z"),
                "duration_ms": chance.choice([0, 1000, 60_000, 310_000, 3_700_000]),
                "principal": chance.choice(["alice", "alice", "bob"]),
                "status": chance.choice([200, 200, 200, 200, 500]),
                "body": body(*asked[-6:] if chance.random() < 0.1 else asked),
                "usage": usage(200, 5),
            }
        )
    return records


@pytest.mark.parametrize("seed", range(4))
def test_a_log_cut_in_parts_continues_as_if_it_were_one(cli: Cli, options: Options, tmp_path: Path, seed: int) -> None:
    records = random_log(seed)
    (tmp_path / "whole.jsonl").write_bytes(lines(records))
    whole = answer(cli, "whole.jsonl", *options)
    chance = random.Random(seed)
    cuts = [0, *sorted(chance.sample(range(1, len(records)), 2)), len(records)]
    pieces: list[dict[str, Any]] = []
    for i, (start, end) in enumerate(pairwise(cuts)):
        (tmp_path / f"part{i}.jsonl").write_bytes(lines(records[start:end]))
        pieces += answer(cli, f"part{i}.jsonl", *options, *(("--continue", "latest") if i else ()))
    assert by_request(pieces) == by_request(whole)
    assert any(row["read_tokens"] for row in pieces)


def by_request(rows: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    found = {(row["policy"], row["request"]): row for row in rows}
    assert len(found) == len(rows)
    return found


def test_continuing_says_so_and_needs_a_run(cli: Cli, options: Options) -> None:
    result = cli("replay", "log.jsonl", *options, "--continue", "latest")
    assert (result.code, result.err.count("\n")) == (2, 1)
    first = cli("replay", "log.jsonl", *options, "--format", "json").json()
    report = cli("replay", "log.jsonl", *options, "--continue", "1", "--format", "json").json()
    (continued,) = [a["text"] for a in report["assumptions"] if a["code"] == "continued"]
    assert first["rows"][0]["run"][:12] in continued
    assert "run 1 " not in continued
    assert "cold_start" not in [a["code"] for a in report["assumptions"]]


def test_looking_at_a_window_is_not_replaying_it(cli: Cli, options: Options) -> None:
    cli("replay", "log.jsonl", *options)
    shown = cli("report", "--since", "2026-03-01T22:01:00Z", "--until", "2026-03-01T22:07:00Z", "--policy",
                "dwctl-10.13", "--by", "request", "--format", "json").rows()  # fmt: skip
    assert [(row["request"], row["read_tokens"]) for row in shown] == [("r3", 10), ("r4", 0), ("r5", 0)]
    replayed = cli("replay", "log.jsonl", *options, "--since", "2026-03-01T22:01:00Z", "--format", "json").json()
    assert "cold_start" in [a["code"] for a in replayed["assumptions"]]
    rows = cli("report", "--by", "request", "--policy", "dwctl-10.13", "--format", "json").rows()
    assert (rows[0]["request"], rows[0]["read_tokens"]) == ("r3", 0)
