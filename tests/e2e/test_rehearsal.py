"""An upgrade one rule at a time: every step computed by hand, and the steps add up to the whole, exactly."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from e2e_support import Cli, body, lines, text, usage, words
from worked_log import ALICE, LOG, TARIFF, at

from cachesim.core.policy import PRESETS, rules
from cachesim.rehearsal import CHANGES, steps

OLD, NEW = PRESETS["dwctl-8.63"], PRESETS["dwctl-10.13"]
UPGRADE = ("compare", "--policy", "dwctl-8.63", "--policy", "dwctl-10.13", "--by-rule")


def test_the_way_leads_from_one_preset_to_the_other_through_every_differing_rule() -> None:
    way = steps(OLD, NEW)
    assert [step.change.name for step in way] == [change.name for change in CHANGES]
    assert way[-1].policy == NEW
    changed = [rule for step in way for rule in step.change.rules]
    assert sorted(changed) == sorted(rule for rule, value in rules(OLD).items() if rules(NEW)[rule] != value)
    policy = OLD
    for step in way:
        switched = {rule: rules(NEW)[rule] for rule in step.change.rules}
        assert replace(policy, name=step.policy.name, **switched) == step.policy
        policy = step.policy
    assert len({step.policy.name for step in way}) == len(way)


def test_the_way_back_is_the_same_way() -> None:
    there, back = steps(OLD, NEW), steps(NEW, OLD)
    assert [step.change for step in back] == [step.change for step in reversed(there)]
    assert [NEW, *(step.policy for step in back)] == [*(step.policy for step in reversed(there)), OLD]


def test_other_rules_are_steps_of_their_own_and_equal_policies_have_none() -> None:
    other = replace(NEW, name="other", walk_back=40, hash_tools=False)
    assert [(s.change.name, s.change.upstream, s.change.rules) for s in steps(NEW, other)] == [
        ("tools hashed", "8.70.0", ("hash_tools",)),
        ("walk back", "", ("walk_back",)),
    ]
    assert steps(NEW, replace(NEW, name="same")) == []


@pytest.fixture
def log(cli: Cli, tmp_path: Path, tokenizer: Path) -> Cli:
    (tmp_path / "log.jsonl").write_bytes(LOG)
    (tmp_path / "prices.toml").write_text(TARIFF)
    assert cli("replay", "log.jsonl", "--tokenizer", tokenizer, "--tariff", "prices.toml").code == 0
    return cli


def test_every_step_of_the_worked_log(log: Cli) -> None:
    rows = log(*UPGRADE, "--format", "json").rows()
    assert [row["rule"] for row in rows] == [change.name for change in CHANGES]
    by_rule = {row["rule"]: row for row in rows}
    # 24h is no longer offered: r7 is rejected (−33) and r9 writes what it could have read from r7 (6.625 − 3.75)
    tiers = by_rule.pop("enabled tiers")
    assert [tiers["charged_a"], tiers["charged_b"], tiers["charged_change"]] == ["176.9", "146.775", "-30.125"]
    assert [tiers["requests_changed"], tiers["requests_rejected_a"], tiers["requests_rejected_b"]] == [2, 0, 1]
    # r12 is cut to its prompt instead of billed at list: 12 instead of 14
    cap = by_rule.pop("billing cap")
    assert [cap["charged_change"], cap["requests_changed"], cap["requests_split"]] == ["-2", 0, 1]
    assert {row["charged_change"] for row in by_rule.values()} == {"0"}
    assert {row["requests_changed"] + row["requests_split"] for row in by_rule.values()} == {0}
    whole = log("compare", *UPGRADE[1:5], "--format", "json").rows()[2]
    assert sum(Decimal(row["charged_change"]) for row in rows) == Decimal(whole["charged"]) == Decimal("-32.125")
    assert all(before["charged_b"] == after["charged_a"] for before, after in pairwise(rows))
    assert rows[-1]["policy"] == "dwctl-10.13"


def test_the_way_back_costs_what_the_way_there_saved(log: Cli) -> None:
    there = log(*UPGRADE, "--format", "json").rows()
    back = log("compare", "--policy", "dwctl-10.13", "--policy", "dwctl-8.63", "--by-rule", "--format", "json").rows()
    assert [row["rule"] for row in back] == [row["rule"] for row in reversed(there)]
    assert [Decimal(row["charged_change"]) for row in back] == [
        -Decimal(row["charged_change"]) for row in reversed(there)
    ]


def test_the_table_sums_up(log: Cli) -> None:
    out = log(*UPGRADE).out
    assert "charged −32.13 (−18.2 %), token hit rate 22.1 % → 23.2 %; most of it: enabled tiers (−30.13)." in out
    assert "the changes add up" in out


def test_rules_that_shape_bodies_read_the_log_again_once(log: Cli, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").rename(tmp_path / "away.jsonl")
    refused = log(*UPGRADE)
    assert refused.code == 3
    assert "log.jsonl: these rules need the log read again, and the file is gone" in refused.err
    (tmp_path / "away.jsonl").rename(tmp_path / "log.jsonl")
    first = log(*UPGRADE, "--format", "json")
    assert log(*UPGRADE, "--format", "json").out == first.out
    assert len(log("runs", "--format", "json").rows()) == 2
    equal = log("compare", "--policy", "dwctl-10.13", "--policy", "dwctl-10.13", "--by-rule")
    assert (equal.code, "have the same rules" in equal.err) == (2, True)


def test_hashed_tools_and_telemetry_are_told_apart(cli: Cli, tmp_path: Path, tokenizer: Path) -> None:
    """Two requests with the same tool (10 words of JSON once it is a block) behind changing telemetry.

    Under 8.63 the telemetry element begins the prompt, so nothing is found again. Hashed tools come before it: their
    own marker makes them readable. With telemetry left out, all of the system prompt is found again.
    """
    tool = {"type": "function", "function": {"name": "f", "description": words("t", 9)},
            "cache_control": {"type": "ephemeral"}}  # fmt: skip
    records = []
    for number, clock in enumerate(("10:00:00", "10:01:00")):
        header = {"type": "text", "text": f"x-anthropic-billing-header: {number}"}
        system = ("system", [header, *text(words("s", 10), "5m")])
        record = {
            "id": f"q{number}",
            "at": at(clock),
            **ALICE,
            "body": body(system, ("user", "go")),
            "usage": usage(40, 0),
        }
        record["body"]["tools"] = [tool]
        records.append(record)
    (tmp_path / "log.jsonl").write_bytes(lines(records))
    (tmp_path / "prices.toml").write_text(TARIFF)
    assert cli("replay", "log.jsonl", "--tokenizer", tokenizer, "--tariff", "prices.toml").code == 0
    rows = {row["rule"]: row for row in cli(*UPGRADE, "--format", "json").rows()}
    # 8.63: both write header and system prompt, 2 + 10 words: 2 · (28 + 12 · 1.25) = 86
    assert rows["tools hashed"]["charged_a"] == "86"
    # The tool is one block of 9 words with its JSON around them: both write system and header (12), the first also
    # writes the tool, the second reads it: (40 − 21 + 21 · 1.25) + (40 − 21 + 9 · 0.1 + 12 · 1.25)
    assert rows["tools hashed"]["charged_b"] == str(Decimal("45.25") + Decimal("34.9"))
    # Without the header the second reads all 19: (40 − 19 + 19 · 1.25) + (40 − 19 + 19 · 0.1) = 44.75 + 22.9
    assert rows["telemetry left out"]["charged_b"] == "67.65"
