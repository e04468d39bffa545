from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from stored_traces import stored, tariffs, varied_trace

from cachesim.config import ModelConfig, load_config
from cachesim.core.gates import AS_CAPTURED, marker_strategy
from cachesim.core.ledger import TariffSet
from cachesim.core.policy import PRESETS, Policy
from cachesim.episodes import Episodes, Fate, follow, keep
from cachesim.pipeline import Preparation, body_rule_sets, prepare
from cachesim.run import Run, RunPlan
from cachesim.store.db import open_database, transaction
from cachesim.store.trace_reader import load_trace
from cachesim.stored_plan import plan_options
from cachesim.sweep import sweep
from cachesim.sweep.grid import Axes
from cachesim.trace.open import find_sources
from cachesim.trace.reader import ReadOptions

FIXTURES = Path(__file__).parents[1] / "fixtures"
NEW = PRESETS["dwctl-10.13"]
POLICIES = [
    NEW,
    PRESETS["dwctl-8.63"],
    replace(NEW, name="three tiers", enabled_ttls=("5m", "1h", "24h"), refresh="all_matched"),
    replace(NEW, name="per breakpoint", floor_scope="breakpoint", window="fixed"),
    replace(NEW, name="at arrival", visible_at="arrival"),
]


def words(count: int, word: str) -> str:
    """Text of so many tokens of the shipped word tokenizer."""
    return " ".join([word] * count)


def message(role: str, text: str, ttl: str | None = None) -> dict[str, Any]:
    part: dict[str, Any] = {"type": "text", "text": text}
    return {"role": role, "content": [part | ({"cache_control": {"type": "ephemeral", "ttl": ttl}} if ttl else {})]}


def followed(tmp_path: Path, lines: list[tuple[int, list[dict[str, Any]], int]]) -> Episodes:
    """The episodes of a log of (minute, messages, status) lines, without a floor."""
    log = tmp_path / "log.jsonl"
    log.write_text(
        "".join(
            json.dumps(
                {"at": 1_772_355_600 + 60 * minute, "principal": "p", "status": status,
                 "usage": {"prompt_tokens": 1000, "completion_tokens": 1}, "body": {"model": "m", "messages": messages}}
            ) + "\n"
            for minute, messages, status in lines
        )
    )  # fmt: skip
    config = replace(load_config([]), models={"*": ModelConfig(str(FIXTURES / "words-tokenizer.json"), None)})
    with open_database(":memory:") as con:
        trace = prepare(con, Preparation(find_sources([str(log)])[0], ReadOptions(), config, body_rule_sets([])))
        policy = replace(NEW, min_prefix_tokens=0)
        return follow(con, trace, policy, AS_CAPTURED, config.tariff)


SYSTEM = message("system", words(100, "rule"), "1h")
HELLO = message("user", words(20, "hello"), "5m")
OTHER = message("user", words(30, "other"), "5m")


def test_every_billed_write_is_read_dead_or_open(tmp_path: Path) -> None:
    episodes = followed(
        tmp_path,
        [
            (0, [SYSTEM, HELLO], 200),  # writes system (100, 1h) and hello (20, 5m)
            (1, [SYSTEM, OTHER], 200),  # reads system, writes other (30, 5m)
            (30, [SYSTEM, OTHER], 200),  # other has expired unread: replaced, dead; reads system, writes other again
            (31, [SYSTEM, OTHER], 200),  # reads other: a pure read
            (32, [message("system", words(7, "new"), "1h")], 200),  # writes 7, still live at the end
        ],
    )
    assert episodes.fates == {
        0: Fate(1, [20, 0, 0], 0),  # hello expired at minute 5, nobody came
        1: Fate(1, [30, 0, 0], 0),
        4: Fate(0, [0, 0, 0], 1),
    }


def test_a_failed_request_reads_but_its_writes_are_nobodys(tmp_path: Path) -> None:
    episodes = followed(
        tmp_path,
        [
            (0, [SYSTEM], 200),
            (1, [SYSTEM, OTHER], 500),  # finds the system prompt, so that write is not dead; writes nothing itself
            (200, [HELLO], 200),
        ],
    )
    assert episodes.fates == {2: Fate(0, [0, 0, 0], 1)}


def test_a_system_prompt_is_named_by_the_digest_of_its_prefix(tmp_path: Path) -> None:
    first, again, longer, none = followed(
        tmp_path, [(0, [SYSTEM, HELLO], 200), (1, [SYSTEM, OTHER], 200), (2, [HELLO, SYSTEM], 200), (3, [HELLO], 200)]
    ).systems
    assert first == again != longer
    assert none is None
    assert first is not None
    assert len(first) == 12
    assert set(first) <= set("0123456789abcdef")


@settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    seed=st.integers(0, 10**9),
    policy=st.sampled_from(POLICIES),
    markers=st.sampled_from(["as-captured", "automatic", "system+last-user"]),
)
def test_the_fates_are_those_a_sweep_sums_up(seed: int, policy: Policy, markers: str) -> None:
    strategy = AS_CAPTURED if markers == "as-captured" else marker_strategy(markers)
    tariff: TariffSet = tariffs(seed)[0]
    with open_database(":memory:") as con:
        trace_no = stored(con, varied_trace(seed))
        trace, plan = load_trace(con, trace_no), RunPlan([policy], [tariff], strategy)
        with transaction(con):
            base = Run(con, trace, plan).execute(plan_options(plan, []), lambda _: [], {}, lambda _: None)
        keep(con, follow(con, trace, policy, strategy, tariff))
        con.execute(
            "SELECT model, principal, sum(dead_writes), sum(dead_c5), sum(dead_c1), sum(dead_c24), sum(open_writes)"
            " FROM followed JOIN requests r USING (seq) WHERE r.trace_no = ? GROUP BY ALL",
            [trace_no],
        )
        found = {row for row in con.fetchall() if any(row[2:])}
        con.execute(
            "SELECT model, principal, sum(dead_writes), sum(dead_c5), sum(dead_c1), sum(dead_c24), sum(open_writes)"
            " FROM swept JOIN sweep_groups USING (run_no, group_no) WHERE run_no = ? AND variant_no = 0 GROUP BY ALL",
            [sweep(con, base, Axes(floors=(None,)), kernel="plain")],
        )
        assert found == {row for row in con.fetchall() if any(row[2:])}


@pytest.mark.parametrize("fates", [True, False])
def test_what_is_kept_has_a_row_per_request(fates: bool) -> None:
    with open_database(":memory:") as con:
        keep(con, Episodes({1: Fate(2, [5, 0, 7], 1)}, ["a", None, "a"]), fates=fates)
        rows = con.execute("SELECT * FROM followed ORDER BY seq").fetchall()
    none = (0,) * 5 if fates else (None,) * 5
    assert rows == [(0, "a", *none), (1, None, *((2, 5, 0, 7, 1) if fates else none)), (2, "a", *none)]
    assert Counter(row[1] for row in rows) == {"a": 2, None: 1}
