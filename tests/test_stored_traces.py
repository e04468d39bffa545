"""The random traces of the database tests read back as made, and are rich enough to prove something."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from stored_traces import MODELS, RULES, run_stored, stored, tariffs, varied_trace

from cachesim.core.gates import AS_CAPTURED
from cachesim.core.policy import PRESETS
from cachesim.run import RunPlan
from cachesim.store.db import open_database
from cachesim.store.trace_reader import Scopes, load_trace, trace_rows

NEW, OLD = PRESETS["dwctl-10.13"], PRESETS["dwctl-8.63"]


def test_what_is_stored_is_read_back() -> None:
    made = varied_trace(3)
    with open_database(":memory:") as con:
        stored(con, varied_trace(2))
        trace_no = stored(con, made)
        trace = load_trace(con, trace_no)
        rows = [row for batch in trace_rows(con, trace, range(len(RULES)), Scopes()) for row in batch]
    assert trace_no == 2
    assert trace.rules == RULES
    assert (list(trace.parents), list(trace.prefixes)) == (list(made.tree.parents), list(made.tree.prefixes))
    assert [list(totals) for totals in trace.cumulative] == [list(totals) for totals in made.cumulative]
    assert [row.prompts for row in rows] == [row.prompts for row in made.rows]
    assert [row.request.at_us for row in rows] == [row.columns["at_us"] for row in made.rows]
    assert [row.prompt_tokens for row in rows] == [row.columns["prompt_tokens"] for row in made.rows]
    assert {row.request.model: row.request.tokenizer for row in rows if row.request.body_state == "ok"} == {
        model: -1 if number is None else number for model, number in MODELS.items()
    }


def test_the_same_seed_is_the_same_trace() -> None:
    assert varied_trace(5).rows == varied_trace(5).rows
    assert varied_trace(5).rows != varied_trace(6).rows


def test_varied_traces_are_rich_enough_to_prove_something() -> None:
    """Over a few seeds every outcome, every reason, every bill state, every tariff and unknown prices occur."""
    found: Counter[str] = Counter()
    policies = [OLD, replace(NEW, name="three tiers", enabled_ttls=("5m", "1h", "24h")), NEW]
    with open_database(":memory:") as con:
        for seed in range(4):
            run_no = run_stored(con, stored(con, varied_trace(seed)), RunPlan(policies, tariffs(seed), AS_CAPTURED))
            for column in ("outcome", "reason", "bill_state", "tiers", "tariff", "billed", "list IS NULL"):
                rows = con.execute(
                    f"SELECT {column}, count(*) FROM v_requests WHERE run_no = ? AND kind = 'policy' GROUP BY 1",
                    [run_no],
                ).fetchall()
                found.update({f"{column}={value}": count for value, count in rows})
    wanted = {
        "outcome": ("inactive", "zero", "read", "create", "read_and_create", "rejected"),
        "reason": ("no_markers", "below_floor", "not_enabled", "unscoped", "no_model", "unparseable", "not_cacheable",
                   "tokenizer_unmapped", "bad_marker:unsupported_type", "bad_marker:too_many_breakpoints",
                   "bad_marker:invalid_cache_breakpoint", "bad_marker:automatic_ttl_conflict"),
        "bill_state": ("ok", "capped", "corrupt", "voided"),
        "tiers": ("5m", "1h", "24h", "1h+5m"),
        "tariff": ("cheap", "dear", "late"),
        "billed": ("True", "False"),
        "list IS NULL": ("True", "False"),
    }  # fmt: skip
    missing = [f"{column}={value}" for column, values in wanted.items() for value in values]
    assert [name for name in missing if not found[name]] == []
