"""`cachesim synth` writes what the library generates, and what is planted is found by replaying it."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from e2e_support import Cli

from cachesim.synth import Plant, generate

FLOORS = (200, 260, 359, 361, 400, 401, 440, 520, 600)


def tariff(floor: int) -> str:
    return f"""
[[cache_tariff]]
model = "mistral-large"
write_5m = "1.25"
write_1h = "2"
write_24h = "2.5"
read = "0.1"
min_prefix_tokens = {floor}
[[base_tariff]]
model = "mistral-large"
input_per_token = "0.000002"
output_per_token = "0.000006"
purpose = "realtime"
"""


def test_what_it_writes_is_what_the_library_generates(cli: Cli, tmp_path: Path) -> None:
    done = cli("synth", "log.jsonl", "--requests", "30", "--seed", "4", "--days", "2.5", "--plant-floor", "100")
    lines = list(generate(4, 30, days=2.5, plant=Plant(100)))
    assert (tmp_path / "log.jsonl").read_bytes() == b"".join(lines)
    assert done.err == f"{len(lines):,} requests ({len(lines) - 30:,} of them planted), seed 4 → log.jsonl\n"
    cli("synth", "plain.jsonl", "--requests", "30")
    assert (tmp_path / "plain.jsonl").read_bytes() == b"".join(generate(1, 30))


def test_a_size_instead_of_a_number(cli: Cli, tmp_path: Path) -> None:
    assert cli("synth", "log.jsonl", "--megabytes", "5").code == 0
    assert 3e6 < (tmp_path / "log.jsonl").stat().st_size < 7e6
    both = cli("synth", "log.jsonl", "--megabytes", "5", "--requests", "7")
    assert (both.code, both.out) == (2, "")
    assert "--megabytes and --requests both say how much" in both.err


@pytest.fixture
def week(cli: Cli, tmp_path: Path, tokenizer: Path) -> Cli:
    """A week with the optimum planted at a floor of 400, replayed under tariffs that differ in the floor."""
    cli("synth", "week.jsonl", "--requests", "100", "--days", "7", "--plant-floor", "400", "--plant-ttl")
    for floor in FLOORS:
        (tmp_path / f"{floor}.toml").write_text(tariff(floor))
    options = [option for floor in FLOORS for option in ("--tariff", f"{floor}.toml")]
    assert cli("replay", "week.jsonl", "--tokenizer", tokenizer, *options, "-q").code == 0
    return cli


@pytest.mark.parametrize("part", [[], ["--until", "2026-03-06"], ["--since", "2026-03-06"]])
def test_the_planted_floor_costs_the_least_in_every_part_of_the_log(week: Cli, part: list[str]) -> None:
    rows = week("report", "--model", "mistral-large", "--format", "json", *part).rows()
    costs = {int(row["tariff"]): Decimal(row["charged"]) for row in rows}
    assert list(costs) == list(FLOORS)
    # All single prompts lie in 240 … 360 tokens, all repeated ones in 400 … 560.
    assert costs[200] > costs[260] > costs[359] > costs[361] == costs[400]
    assert costs[400] < costs[401] < costs[440] < costs[520] < costs[600] == Decimal(rows[0]["list"])
    assert rows[0]["drift"] == 0


def test_an_hour_pays_in_the_slow_sessions(cli: Cli, tokenizer: Path) -> None:
    cli("synth", "log.jsonl", "--requests", "1", "--plant-ttl")
    costs = {}
    for seconds in (300, 3600):
        rule = f"tier_seconds=[{seconds}, 3600, 86400]"
        rows = cli(
            "replay", "log.jsonl", "--tokenizer", tokenizer, "--set", rule, "--format", "json", "-q", "--dry-run"
        ).rows()
        row = next(row for row in rows if row["model"] == "gpt-oss-20b" and row["list"] is not None)
        costs[seconds] = row
    five, hour = costs[300], costs[3600]
    assert (five["read_tokens"], Decimal(five["charged"]) > Decimal(five["list"])) == (0, True)
    # With a write of 2 instead of 1.25: writes(1h)/writes(5m) is far below the break-even of 0.605.
    assert hour["creation_5m_tokens"] / five["creation_5m_tokens"] < 0.25
