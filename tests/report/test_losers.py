from __future__ import annotations

from decimal import Decimal
from typing import Any

import duckdb
import pytest
from sample_run import Req, fill

from cachesim.episodes import Episodes, Fate, keep
from cachesim.errors import UsageError
from cachesim.report.losers import cohort_rows, dead_text, headline, is_evidence, list_text, losers
from cachesim.report.query import variants_of
from cachesim.store.db import IN_MEMORY, open_database

# prices: input 0.001, read ×0.1, 5m ×1.25, 1h ×2
REQUESTS = [
    Req(principal="acme", prompt=1000, split=(600, 0, 0), tags={"app": "chat"}),  # saves 600 × 0.0009 = 0.54
    Req(principal="acme", prompt=1000, split=(0, 400, 0), tags={"app": "batch"}),  # pays 400 × 0.00025 = 0.1
    Req(principal="beta", prompt=1000, split=(0, 0, 300), tags={"app": "batch"}),  # pays 300 × 0.001 = 0.3
    Req(principal="beta", prompt=1000, split=(0, 900, 0), ok=False),  # failed: not billed
    Req(principal="none", prompt=500),
]
EPISODES = Episodes(
    {1: Fate(1, [400, 0, 0], 0), 2: Fate(1, [0, 200, 0], 1)},
    ["a1b2c3d4e5f6", "a1b2c3d4e5f6", "0" * 12, None, None],
)


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    con = open_database(IN_MEMORY)
    fill(con, REQUESTS)
    keep(con, EPISODES)
    return con


def cohorts(con: duckdb.DuckDBPyConnection, name: str | None, **options: bool) -> list[dict[str, Any]]:
    return cohort_rows(con, 1, variants_of(con, 1)[0], name, **options)


def test_delta_is_the_premium_of_writes_less_the_saving_of_reads(con: duckdb.DuckDBPyConnection) -> None:
    rows = cohorts(con, "principal")
    assert [(row["cohort"], row["delta"]) for row in rows] == [
        ("beta", Decimal("0.3")),
        ("none", Decimal(0)),
        ("acme", Decimal("0.1") - Decimal("0.54")),
    ]
    acme = rows[2]
    assert (acme["write_premium"], acme["read_saving"]) == (Decimal("0.1"), Decimal("0.54"))
    assert all(row["delta"] == row["write_premium"] - row["read_saving"] for row in rows)
    assert (acme["requests"], acme["creation_tokens"], acme["delta_share"]) == (2, 400, pytest.approx(-0.22))
    assert [row["cohort"] for row in losers(rows)] == ["beta"]


def test_dead_writes_are_paid_for_at_the_price_of_their_request(con: duckdb.DuckDBPyConnection) -> None:
    beta, none, acme = cohorts(con, "principal")
    assert (beta["dead_writes"], beta["dead_tokens"], beta["dead_premium"], beta["open_writes"]) == (
        1, 200, 200 * Decimal("0.001"), 1,
    )  # fmt: skip
    assert (acme["dead_writes"], acme["dead_premium"]) == (1, 400 * Decimal("0.00025"))
    assert (none["dead_writes"], none["dead_premium"], none["open_writes"]) == (0, Decimal(0), 0)
    (everyone,) = cohorts(con, None)
    assert (everyone["dead_writes"], everyone["dead_tokens"], everyone["dead_premium"]) == (2, 600, Decimal("0.3"))
    assert dead_text(everyone) == (
        "dead writes: 2 were never read, 85.7 % of the tokens written, 0.300 above list; 1 still live when the log ends"
    )


def test_cohorts_are_tags_and_system_prompts_too(con: duckdb.DuckDBPyConnection) -> None:
    assert [(row["cohort"], row["delta"]) for row in cohorts(con, "tag:app")] == [
        ("batch", Decimal("0.4")),
        (None, Decimal(0)),
        ("chat", Decimal("-0.54")),
    ]
    assert [(row["cohort"], row["requests"]) for row in cohorts(con, "system")] == [
        ("0" * 12, 1), (None, 1), ("a1b2c3d4e5f6", 2),
    ]  # fmt: skip
    with pytest.raises(UsageError, match="did you mean principal"):
        cohorts(con, "principle")


def test_days_and_hours_are_named_as_in_reports(con: duckdb.DuckDBPyConnection) -> None:
    assert [row["cohort"] for row in cohorts(con, "day")] == ["2026-01-01"]
    assert [row["cohort"] for row in cohorts(con, "hour")] == ["2026-01-01T00:00:00Z"]


def test_where_writes_are_not_followed_their_figures_are_unknown(con: duckdb.DuckDBPyConnection) -> None:
    keep(con, EPISODES, fates=False)
    (everyone,) = cohorts(con, None, fates=False)
    assert [everyone[name] for name in ("dead_writes", "dead_tokens", "dead_premium", "open_writes")] == [None] * 4
    assert everyone["delta"] == Decimal("-0.14")
    assert "continued the index of another" in dead_text(everyone)


def test_unknown_money_is_no_loss(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("UPDATE classified SET price_no = NULL WHERE seq = 2")
    rows = cohorts(con, "principal")
    assert [(row["cohort"], row["delta"]) for row in rows][-1] == ("beta", None)
    assert losers(rows) == []
    assert list_text("principal", rows) == "principal: none of 3 pays more; 1 in unknown money"


def test_nobody_loses_only_where_bills_are_known(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("UPDATE classified SET price_no = NULL WHERE seq <> 0")
    (everyone,) = cohorts(con, None)
    lists = {name: cohorts(con, name) for name in ("principal", "tag:app")}  # only chat has a bill: it saves
    assert headline(everyone, lists) == (
        "Nobody whose bill is known pays more with caching than without; unknown: 3 of 3 principals and 2 of 3 apps."
    )
    assert [is_evidence(rows) for rows in lists.values()] == [False, True]


def test_a_cohort_without_tokens_is_no_evidence() -> None:
    empty, unknown = {"delta": Decimal(0), "prompt_tokens": 0}, {"delta": None, "prompt_tokens": 9}
    saves = {"delta": Decimal(-1), "prompt_tokens": 9}
    assert [is_evidence(rows) for rows in ([empty], [empty, unknown], [saves, unknown])] == [True, False, True]


def test_the_headline_counts_each_list(con: duckdb.DuckDBPyConnection) -> None:
    (everyone,) = cohorts(con, None)
    lists = {name: cohorts(con, name) for name in ("principal", "tag:app", "system")}
    assert headline(everyone, {"principal": lists["principal"]}) == (
        "1 of 3 principals pays more with caching than without."
    )
    assert headline(everyone, lists) == (
        "1 of 3 principals, 1 of 3 apps and 1 of 3 system prompts pay more with caching than without."
    )
    assert list_text("principal", lists["principal"]) == "principal: 1 of 3 pays 0.300 more"
    spared = {"model": [row for row in cohorts(con, "model") if row["delta"] < 0]}
    assert headline(everyone, spared) == "Nobody pays more with caching than without: none of 1 model."
    assert headline({**everyone, "requests": 0}, lists) == "Nobody pays: no request of this run counts."
