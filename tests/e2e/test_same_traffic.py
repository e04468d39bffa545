"""The same traffic, logged by whatever tool: the same split of every request, the same totals, the same money.

What a format cannot tell stands in CANNOT, and nothing else may differ: the answer is compared with that of a capture
of the same traffic from which exactly those facts were taken away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from containers import CONTAINERS
from e2e_support import Cli
from same_traffic import NAMES, Exchange, capture, json_lines, traffic, unmarked
from traffic_logs import MAPPING, ROWS, files, house

from cachesim.trace.formats import FORMATS

Json = dict[str, Any]

TARIFF = """
[[cache_tariff]]
model = "m"
write_5m = "1.25"
write_1h = "2"
write_24h = "2.5"
read = "0.1"
min_prefix_tokens = 5
[[base_tariff]]
model = "m"
input_per_token = "1"
output_per_token = "2"
purpose = "realtime"
"""

CANNOT: dict[str, set[str]] = {
    "openai-batch": {"principal", "duration_ms", "session", "cost"},
    "anthropic": {"session", "cost"},
    "dwctl": {"markers", "session"},
    "recorded": {"principal", "duration_ms"},
    "litellm": set(),
    "litellm-spend-logs": set(),
    "langfuse": set(),
    "langfuse-trace": set(),
    "helicone": set(),
    "portkey": set(),
    "openhands": {"principal"},
    "inspect": {"principal"},
}
"""Per format, the members of a capture that it has no place for; markers: those in the body."""

OPTIONS: dict[str, Sequence[str]] = {
    # the time, which batch files do not tell either, must be given; the traffic is as regular as that
    "openai-batch": ("--start", "2026-03-01T09:00:00Z", "--interval", "2m"),
    # where markers are lost, others are assumed, so that there is something to compare
    "dwctl": ("--markers", "automatic"),
}

NO_REQUESTS_OF_THEIR_OWN = {"cachesim", "mini-swe-agent"}
"""The capture is what all are compared with; a trajectory holds messages alone, of one conversation without tools."""

OTHER_NAMES = {"run", "log_format", "request", "session"}
"""Columns that name the log and its rows. Only some formats keep the ids and sessions of the traffic as they are."""

SAME_IDS = {"openai-batch", "anthropic", "litellm", "litellm-spend-logs", "langfuse", "langfuse-trace", "helicone",
            "portkey", "inspect"}  # fmt: skip
SAME_SESSIONS = {"recorded", "litellm", "litellm-spend-logs", "langfuse", "langfuse-trace", "helicone", "portkey",
                 "openhands"}  # fmt: skip

EXPORTED = ("cachesim", "litellm", "litellm-spend-logs", "langfuse", "helicone", "portkey")
"""Formats whose rows come out of databases and web pages, and so in tables and arrays too."""

Answer = Callable[..., tuple[list[Json], list[Json]]]


@pytest.fixture
def answer(cli: Cli, tokenizer: Path, tmp_path: Path) -> Answer:
    """`answer({"log.jsonl": b"…"})`: a replay of these files, as its rows by request and by principal."""
    (tmp_path / "prices.toml").write_text(TARIFF)
    fixed = ("--tokenizer", tokenizer, "--tariff", "prices.toml", "--policy", "dwctl-10.13", "--policy", "dwctl-8.63")

    def replayed(logs: dict[str, bytes], *options: str) -> tuple[list[Json], list[Json]]:
        for name, content in logs.items():
            (tmp_path / name).write_bytes(content)
        (tmp_path / "answer.duckdb").unlink(missing_ok=True)
        ran = cli("replay", *logs, *fixed, *options, "--db", "answer.duckdb", "--format", "json")
        assert (ran.code, ran.err) == (0, "")
        assert "sk-" not in ran.out
        told = []
        for by in ("request", "principal"):
            rows = cli("report", "--by", by, "--db", "answer.duckdb", "--format", "json").rows()
            told.append([row | {"principal": NAMES.get(row["principal"], row["principal"])} for row in rows])
        return told[0], sorted(told[1], key=lambda row: (row["policy"], row["principal"]))

    return replayed


def known(exchanges: Sequence[Exchange], cannot: set[str]) -> bytes:
    """A capture of the traffic without what a format cannot tell."""
    rows = [{name: value for name, value in capture(x).items() if name not in cannot} for x in exchanges]
    return json_lines(unmarked(rows) if "markers" in cannot else rows)


def without(rows: Sequence[Json], names: set[str]) -> list[Json]:
    return [{name: value for name, value in row.items() if name not in names} for row in rows]


def test_no_format_is_forgotten() -> None:
    assert set(CANNOT) | NO_REQUESTS_OF_THEIR_OWN == set(FORMATS)


def test_the_traffic_has_all_that_matters(answer: Answer) -> None:
    requests, principals = answer({"log.jsonl": json_lines(map(capture, traffic()))})
    new = [row for row in requests if row["policy"] == "dwctl-10.13"]
    assert {row["outcome"] for row in new} >= {"create", "read_and_create"}
    for name in ("read_tokens", "creation_5m_tokens", "creation_1h_tokens", "uncached_tokens", "recorded_read_tokens"):
        assert any(row[name] for row in new), name
    assert [row["succeeded"] for row in new].count(False) == 1
    assert {row["principal"] for row in principals} == {"acme", "birch"}
    assert all(float(row["delta"]) for row in principals)


@pytest.mark.parametrize("log_format", CANNOT)
def test_the_answer_is_that_of_a_capture(answer: Answer, log_format: str) -> None:
    exchanges, cannot = traffic(), CANNOT[log_format]
    options = (*OPTIONS.get(log_format, ()), *(("--principal", "everyone") if "principal" in cannot else ()))
    expected, expected_sums = answer({"capture.jsonl": known(exchanges, cannot)}, *options)
    found, sums = answer(files(log_format, exchanges), *options)
    assert {row["log_format"] for row in found} == {log_format}
    assert without(found, OTHER_NAMES) == without(expected, OTHER_NAMES)
    assert without(sums, OTHER_NAMES) == without(expected_sums, OTHER_NAMES)
    if log_format in SAME_IDS:
        assert [row["request"] for row in found] == [row["request"] for row in expected]
    if log_format in SAME_SESSIONS:
        assert [row["session"] for row in found] == [row["session"] for row in expected]


@pytest.mark.parametrize("container", ["rows.jsonl", *CONTAINERS])
def test_a_log_that_a_mapping_describes(answer: Answer, tmp_path: Path, container: str) -> None:
    (tmp_path / "house.toml").write_text(MAPPING)
    expected = answer({"capture.jsonl": known(traffic(), set())})
    rows = [house(x) for x in traffic()]
    found = answer({container: CONTAINERS.get(container, json_lines)(rows)}, "--mapping", "house.toml")
    assert [without(told, {"run", "log_format"}) for told in found] == [
        without(told, {"run", "log_format"}) for told in expected
    ]


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("log_format", EXPORTED)
def test_rows_may_come_in_any_container(answer: Answer, log_format: str, container: str) -> None:
    """As a row a line, in an array, wrapped by an object, or as a table: only where a record stands is different."""
    rows = [ROWS[log_format](x) for x in traffic()]
    expected = answer({"rows.jsonl": json_lines(rows)})
    found = answer({container: CONTAINERS[container](rows)})
    assert [without(told, {"run"}) for told in found] == [without(told, {"run"}) for told in expected]
