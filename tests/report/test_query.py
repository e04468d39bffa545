from __future__ import annotations

from decimal import Decimal
from itertools import product
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_run import HOUR_US, START_US, Price, Req, fill

from cachesim.errors import UsageError
from cachesim.report.query import CHUNK, DIMENSIONS, Filters, report_rows, request_rows, variant_rows
from cachesim.report.runs import find_run, latest_run, list_runs, show_run
from cachesim.report.times import instant_text, parse_instant
from cachesim.store.db import IN_MEMORY, open_database


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    return open_database(IN_MEMORY)


# 2000 = read 1000 + 1h 500 + uncached 500; completion 100; prices 0.001 in, 0.002 out, read 0.1, 1h 2
WORKED = Req(prompt=2000, completion=100, split=(1000, 0, 500), outcome="read_and_create", tiers="1h")


def test_the_worked_case_of_a_charge(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, [WORKED])
    (row,) = report_rows(con, 1)
    assert row["list"] == Decimal("2000") * Decimal("0.001") + Decimal("100") * Decimal("0.002") == Decimal("2.2")
    assert row["charged"] == Decimal("0.5") + Decimal("0.1") + Decimal("1.0") + Decimal("0.2") == Decimal("1.8")
    assert row["delta"] == Decimal("-0.4")
    assert (row["requests"], row["requests_read"], row["unpriced"]) == (1, 1, 0)
    assert (row["prompt_tokens"], row["read_tokens"], row["creation_1h_tokens"], row["uncached_tokens"]) == (
        2000,
        1000,
        500,
        500,
    )
    assert (row["token_hit_rate"], row["cacheable_hit_rate"], row["request_hit_rate"]) == (0.5, 1000 / 1500, 1.0)


def test_failed_and_rejected_requests_are_apart(con: duckdb.DuckDBPyConnection) -> None:
    failed = Req(prompt=700, completion=7, split=(700, 0, 0), ok=False)
    rejected = Req(prompt=300, completion=50, outcome="rejected", reason="bad_marker:invalid_ttl")
    failed_and_rejected = Req(prompt=10, outcome="rejected", ok=False)
    fill(con, [WORKED, failed, rejected, failed_and_rejected])
    (row,) = report_rows(con, 1)
    assert (row["requests"], row["requests_failed"], row["requests_rejected"]) == (1, 1, 2)
    assert row["prompt_tokens"] == 2000
    assert row["charged"] == Decimal("1.8")
    assert row["request_hit_rate"] == 1.0
    assert row["rejected_list"] == Decimal("0.3") + Decimal("0.1") + Decimal("0.01")


def test_money_is_unknown_as_soon_as_one_price_is(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, [WORKED, Req(model="x", prompt=50, price=None)])
    (total,) = report_rows(con, 1)
    assert (total["list"], total["charged"], total["delta"], total["unpriced"]) == (None, None, None, 1)
    known, unknown = report_rows(con, 1, ["model"])
    assert (known["model"], known["charged"], known["unpriced"]) == ("m", Decimal("1.8"), 0)
    assert (unknown["model"], unknown["charged"], unknown["unpriced"]) == ("x", None, 1)


def test_an_unpriced_failed_or_rejected_request_spoils_no_bill(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, [WORKED, Req(prompt=1, price=None, ok=False), Req(prompt=1, price=None, outcome="rejected")])
    (row,) = report_rows(con, 1)
    assert (row["charged"], row["unpriced"], row["rejected_list"]) == (Decimal("1.8"), 0, None)


def test_bounds_have_tokens_and_rates_but_no_money(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, [Req(prompt=1000, split=(400, 0, 0), ideal=900)])
    rows = {row["policy"]: row for row in report_rows(con, 1, [], Filters(bounds=True))}
    assert list(rows) == ["dwctl-10.13", "off", "ideal"]
    assert [rows[p]["token_hit_rate"] for p in rows] == [0.4, 0.0, 0.9]
    assert all(
        rows[p][m] is None for p in ("off", "ideal") for m in ("list", "charged", "delta", "unpriced", "rejected_list")
    )
    assert [row["policy"] for row in report_rows(con, 1)] == ["dwctl-10.13"]
    assert [row["policy"] for row in report_rows(con, 1, [], Filters(policies=("ideal",)))] == ["ideal"]


def test_the_billed_split_counts_and_capping_is_told(con: duckdb.DuckDBPyConnection) -> None:
    # prompt 10,100, read 10,000 + 5m 200 exceed it, read is cut to 9,900:
    # charged 9.9 * 0.1 + 0.2 * 1.25 + 5 * 0.002 = 1.25
    capped = Req(prompt=10_100, completion=5, split=(10_000, 200, 0), billed=(9_900, 200, 0), state="capped")
    corrupt = Req(prompt=100, split=(0, 150, 0), billed=(0, 0, 0), state="corrupt", outcome="create")
    fill(con, [capped, corrupt])
    by_state = {row["outcome"]: row for row in report_rows(con, 1, ["outcome"])}
    assert by_state["read"]["charged"] == Decimal("1.25")
    assert by_state["create"]["charged"] == by_state["create"]["list"] == Decimal("0.1")
    (row,) = report_rows(con, 1)
    assert (row["capped"], row["capped_tokens"], row["corrupt"], row["voided"]) == (1, 100, 1, 0)
    assert (row["read_tokens"], row["creation_5m_tokens"], row["uncached_tokens"]) == (9_900, 200, 100)


def test_rates_without_a_denominator_are_null_and_sums_are_zero(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, [WORKED])
    (row,) = report_rows(con, 1, [], Filters(models=("nobody",)))
    assert (row["token_hit_rate"], row["cacheable_hit_rate"], row["request_hit_rate"], row["drift"]) == (None,) * 4
    assert (row["requests"], row["prompt_tokens"], row["list"], row["delta"]) == (0, 0, Decimal(0), Decimal(0))
    assert report_rows(con, 1, ["model"], Filters(models=("nobody",))) == []


def test_drift_compares_only_what_is_known_on_both_sides(con: duckdb.DuckDBPyConnection) -> None:
    known = Req(prompt=1000, local=980)
    also = Req(prompt=500, local=550)
    fill(
        con, [known, also, Req(prompt=77, local=77, estimated=True), Req(prompt=5000), Req(prompt=9, local=1, ok=False)]
    )
    (row,) = report_rows(con, 1)
    assert (row["local_tokens"], row["reported_prompt_tokens"]) == (980 + 550, 1000 + 500)
    assert row["drift"] == pytest.approx(0.02)  # 1530 / 1500 - 1
    assert row["prompt_estimated_requests"] == 1


def test_what_the_log_recorded_is_summed_where_it_is_recorded(con: duckdb.DuckDBPyConnection) -> None:
    fill(
        con,
        [
            Req(cost=Decimal("0.00000001"), recorded_read=5),
            Req(cost=Decimal("2")),
            Req(),
            Req(cost=Decimal(9), ok=False),
        ],
    )
    (row,) = report_rows(con, 1)
    assert (row["recorded_cost"], row["recorded_cost_requests"]) == (Decimal("2.00000001"), 2)
    assert (row["recorded_read_tokens"], row["recorded_read_requests"]) == (5, 1)


def test_order_is_variant_then_group_values_with_nulls_last(con: duckdb.DuckDBPyConnection) -> None:
    fill(
        con,
        [Req(model=None), Req(model="b"), Req(model="a")],
        policies=[("z-first", "t2"), ("a-second", "t1"), ("a-second", "t0")],
    )
    rows = report_rows(con, 1, ["model"])
    variants = [("z-first", "t2"), ("a-second", "t1"), ("a-second", "t0")]
    assert [(r["policy"], r["tariff"], r["model"]) for r in rows] == [
        (*v, m) for v in variants for m in ("a", "b", None)
    ]
    assert list(rows[0])[:5] == ["run", "policy", "tariff", "model", "requests"]


def test_days_and_hours_follow_the_time_zone(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, [Req(at_us=START_US + 23 * HOUR_US + 1)])
    assert report_rows(con, 1, ["day", "hour"])[0]["hour"] == "2026-01-01T23:00:00Z"
    berlin = report_rows(con, 1, ["day", "hour"], Filters(timezone="Europe/Berlin"))[0]
    assert (berlin["day"], berlin["hour"]) == ("2026-01-02", "2026-01-02T00:00:00+01:00")
    assert report_rows(con, 1, ["hour"], Filters(timezone="Asia/Kolkata"))[0]["hour"] == "2026-01-02T04:00:00+05:30"
    assert report_rows(con, 1, ["hour"], Filters(timezone="America/St_Johns"))[0]["hour"] == "2026-01-01T19:00:00-03:30"


def test_the_repeated_hour_in_autumn_stays_two_hours(con: duckdb.DuckDBPyConnection) -> None:
    midnight = parse_instant(con, "--since", "2026-10-25", "UTC")  # Berlin: 3:00 summer time becomes 2:00 at 01:00 UTC
    fill(con, [Req(at_us=midnight + h * HOUR_US + 5) for h in range(3)])
    rows = report_rows(con, 1, ["hour"], Filters(timezone="Europe/Berlin"))
    assert [row["hour"] for row in rows] == [
        "2026-10-25T02:00:00+02:00",
        "2026-10-25T02:00:00+01:00",
        "2026-10-25T03:00:00+01:00",
    ]


def test_since_is_included_until_is_not(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, [Req(at_us=START_US + i) for i in range(4)])
    (row,) = report_rows(con, 1, [], Filters(since_us=START_US + 1, until_us=START_US + 3))
    assert row["requests"] == 2


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2026-01-01", "UTC", START_US),
        ("2026-01-01", "Europe/Berlin", START_US - HOUR_US),
        ("2026-01-01T02:00:00+02:00", "Europe/Berlin", START_US),
        ("2026-01-01T00:00:00.000001Z", "UTC", START_US + 1),
    ],
)
def test_instants_are_read_in_the_time_zone(
    con: duckdb.DuckDBPyConnection, text: str, zone: str, expected: int
) -> None:
    assert parse_instant(con, "--since", text, zone) == expected


def test_instants_are_written_as_short_as_they_are_exact() -> None:
    assert instant_text(START_US) == "2026-01-01T00:00:00Z"
    assert instant_text(START_US + 120_000) == "2026-01-01T00:00:00.120Z"
    assert instant_text(-62_135_596_800_000_000) == "0001-01-01T00:00:00Z"
    assert instant_text(253_402_300_800_000_000) == "9999-12-31T23:59:59Z"  # an entry that expires in the year 10000
    assert instant_text(START_US + 1) == "2026-01-01T00:00:00.000001Z"


def test_tags_are_found_whatever_their_name(con: duckdb.DuckDBPyConnection) -> None:
    names = ["app", "a/b", "t~x", "q'uo\"te", "{braces}", "mit leerzeichen"]
    fill(con, [Req(prompt=5, tags=dict.fromkeys(names, "v")), Req(prompt=3)])
    for name in names:
        rows = report_rows(con, 1, [f"tag:{name}"])
        assert [(row[f"tag:{name}"], row["prompt_tokens"]) for row in rows] == [("v", 5), (None, 3)]


@pytest.mark.parametrize(
    ("by", "filters", "words"),
    [
        (["modle"], Filters(), "did you mean model"),
        (["tag:"], Filters(), "tag:NAME"),
        ([], Filters(timezone="Europe/Berln"), "did you mean Europe/Berlin"),
        ([], Filters(policies=("nope",)), "which has dwctl-10.13, off, ideal"),
        ([], Filters(tariffs=("nope",)), "which has default"),
    ],
)
def test_unknown_names_are_usage_errors(
    con: duckdb.DuckDBPyConnection, by: list[str], filters: Filters, words: str
) -> None:
    fill(con, [WORKED])
    with pytest.raises(UsageError, match=words):
        report_rows(con, 1, by, filters)


def test_names_from_logs_are_data_not_sql(con: duckdb.DuckDBPyConnection) -> None:
    evil = "x'); DROP TABLE runs; --"
    fill(con, [Req(model=evil, principal=evil, prompt=4)])
    (row,) = report_rows(con, 1, ["model"], Filters(models=(evil,), principals=(evil,)))
    assert (row["model"], row["prompt_tokens"]) == (evil, 4)


REQUESTS = st.lists(
    st.builds(
        Req,
        model=st.sampled_from(["a", "b", None]),
        prompt=st.integers(60, 10**6),
        completion=st.integers(0, 10**5),
        split=st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20)),
        outcome=st.sampled_from(["read", "create", "zero", "rejected"]),
        reason=st.sampled_from([None, "no_markers"]),
        price=st.sampled_from([0, 1, 1, 0, None]),
        ok=st.sampled_from([True, True, False]),
        at_us=st.integers(START_US, START_US + 60 * HOUR_US),
        session=st.sampled_from([None, "s"]),
        tags=st.sampled_from([{}, {"app": "x"}]),
        local=st.none() | st.integers(0, 10**6),
        estimated=st.booleans(),
    ),
    max_size=12,
)
PRICES = (Price(), Price("0.0000031", "0.0000000000001", ("0.8", "1", "1.1", "3"), "other"))


@settings(max_examples=8, deadline=None)
@given(requests=REQUESTS)
def test_totals_over_any_grouping_equal_the_ungrouped_totals(requests: list[Req]) -> None:
    con = open_database(IN_MEMORY)
    fill(con, requests, PRICES)
    totals = dict(variant_rows(con, 1, [], Filters(bounds=True)))
    for by in [[name] for name in (*DIMENSIONS, "tag:app")] + [["model", "day"], ["outcome", "reason", "hour"]]:
        groups = variant_rows(con, 1, by, Filters(bounds=True, timezone="Asia/Kolkata"))
        for number, total in totals.items():
            rows = [row for variant_no, row in groups if variant_no == number]
            for name in (
                "requests",
                "requests_failed",
                "requests_rejected",
                "prompt_tokens",
                "read_tokens",
                "uncached_tokens",
            ):
                assert sum(row[name] for row in rows) == total[name], (by, name)
            if total["policy"] == "dwctl-10.13":
                assert sum(row["unpriced"] for row in rows) == total["unpriced"]
                priced = [row["charged"] for row in rows]
                assert (None in priced) == (total["charged"] is None)
                assert None in priced or sum(priced) == total["charged"]


@settings(max_examples=12, deadline=None)
@given(requests=REQUESTS)
def test_rows_by_request_add_up_to_the_totals(requests: list[Req]) -> None:
    con = open_database(IN_MEMORY)
    fill(con, requests, PRICES)
    (total,) = report_rows(con, 1)
    rows = list(request_rows(con, 1))
    assert [row["request"] for row in rows] == [f"r{i}" for i in range(len(requests))]
    known = [row for row in rows if row["list"] is not None]
    if total["unpriced"] == 0:
        assert sum(row["charged"] for row in known) == total["charged"]
        assert sum(row["delta"] for row in known) == total["delta"]
    for row, request in zip(rows, requests, strict=True):
        assert (row["list"] is None) == (not request.ok or request.outcome == "rejected" or request.price is None)


def test_a_request_row_has_both_splits(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, [Req(prompt=10_100, completion=5, split=(10_000, 200, 0), billed=(9_900, 200, 0), state="capped")])
    (row,) = request_rows(con, 1)
    expected: dict[str, Any] = {
        "request": "r0", "at": START_US, "model": "m", "outcome": "read", "reason": None, "prompt_tokens": 10_100,
        "read_tokens": 10_000, "creation_5m_tokens": 200, "uncached_tokens": 0, "billed_read_tokens": 9_900,
        "billed_creation_5m_tokens": 200, "billed_uncached_tokens": 0, "list": Decimal("10.11"),
        "charged": Decimal("1.25"), "delta": Decimal("-8.86"), "committed": True, "bill_state": "capped",
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected


def test_rows_by_request_cross_chunks_in_order(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, [Req(prompt=i) for i in range(CHUNK + 5)], policies=[("p", "a"), ("p", "b")], bounds=False)
    rows = [(row["tariff"], row["prompt_tokens"]) for row in request_rows(con, 1)]
    assert rows == list(product("ab", range(CHUNK + 5)))


def test_runs_are_found_by_number_digest_or_as_the_latest(con: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(UsageError, match="no run yet"):
        latest_run(con)
    for run_no in (1, 2, 3):
        fill(con, [WORKED], run_no=run_no, problems={"bad_lines": run_no})
    assert latest_run(con) == find_run(con, "latest") == find_run(con, "3") == find_run(con, "03AB") == 3
    assert [run.digest[:2] for run in list_runs(con)] == ["01", "02", "03"]
    assert show_run(con, 2).problems == {"bad_lines": 2}
    con.execute("UPDATE runs SET digest = 'abcd1' WHERE run_no = 1")
    con.execute("UPDATE runs SET digest = 'abcd2' WHERE run_no = 2")
    with pytest.raises(UsageError, match="2 runs begin"):
        find_run(con, "abcd")
    for unknown in ("9", "ffff", "ab"):
        with pytest.raises(UsageError, match="cachesim runs"):
            find_run(con, unknown)


def test_numbers_and_clocks_of_a_run_stay_out_of_its_entry(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, [WORKED], run_no=77)
    entry = show_run(con, 77).entry(full=True)
    assert "2026-02-03" not in repr(entry)
    assert not {"run_no", "trace_no", "created_at"} & set(entry)
    assert entry["variants"][0]["rules"] == {"walk_back": 20}
