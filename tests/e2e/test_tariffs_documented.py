"""The worked example of docs/tariffs.md, replayed: every amount in its table comes out, from any kind of file."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from e2e_support import Cli, body, lines, text, usage, words

from cachesim.tariffs.check import CODES

PAGE = (Path(__file__).parents[2] / "docs" / "tariffs.md").read_text(encoding="utf-8")
EXAMPLE = PAGE.partition("## A worked example")[2].partition("## Looking at ledgers")[0]
TERM = re.compile(r"[0-9.]+(?:·[0-9.]+)*")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", EXAMPLE, re.DOTALL)
    assert found
    return found[1]


def table() -> list[list[str]]:
    rows = [
        [cell.strip() for cell in line.strip("|\n").split("|")] for line in EXAMPLE.splitlines() if line[:2] == "| "
    ]
    return rows[1:]


def instant(shown: str) -> str:
    """`02-28 23:58` of the page as RFC 3339; the year is 2026 unless it says."""
    return f"{shown if shown[:2] == '20' else '2026-' + shown}:00Z".replace(" ", "T")


def record(row: list[str]) -> dict[str, Any]:
    name, arrival, scope, batch, *_ = row
    purpose, _, window = scope.partition(", ")
    more = {"completion_window": window} if window else {}
    more |= {"batch_created_at": instant(batch)} if batch else {}
    messages = (("system", text(words("s", 200), "5m")), ("user", "go"))
    return {"id": name, "at": instant(arrival), "principal": "acme", "purpose": purpose, **more,
            "body": body(*messages), "usage": usage(1000, 100)}  # fmt: skip


def computed(sum_text: str) -> Decimal:
    """The amount behind `a·b + c·d = e`, after checking the page's own arithmetic."""
    written, _, total = sum_text.partition(" = ")
    amount = Decimal(0)
    for term in written.split(" + "):
        assert TERM.fullmatch(term)
        product = Decimal(1)
        for factor in term.split("·"):
            product *= Decimal(factor)
        amount += product
    assert amount == Decimal(total)
    return amount


def as_toml(csv_text: str) -> str:
    """The base tariffs of the page's dump, written by hand."""
    names = {"alias": "model", "input_price_per_token": "input_per_token", "api_key_purpose": "purpose",
             "output_price_per_token": "output_per_token"}  # fmt: skip
    head, *rows = (line.split(",") for line in csv_text.splitlines())
    parts = [{names.get(key, key): value for key, value in zip(head, row, strict=True) if value} for row in rows]
    return "".join(
        "[[base_tariff]]\n" + "".join(f'{key} = "{value}"\n' for key, value in part.items()) for part in parts
    )


@pytest.mark.parametrize("kind", ["csv", "toml", "parquet"])
def test_every_amount_of_the_page_comes_out(kind: str, cli: Cli, tmp_path: Path, tokenizer: Path) -> None:
    rows = table()
    (tmp_path / "log.jsonl").write_bytes(lines(map(record, rows)))
    (tmp_path / "cache.toml").write_text(block("toml"))
    (tmp_path / "prices.csv").write_text(block("csv"))
    (tmp_path / "prices.toml").write_text(as_toml(block("csv")))
    if kind == "parquet":
        import polars as pl

        frame = pl.read_csv(tmp_path / "prices.csv", infer_schema=False)
        times = [pl.col(name).str.to_datetime("%Y-%m-%dT%H:%M:%SZ") for name in ("valid_from", "valid_until")]
        frame.with_columns(times).write_parquet(tmp_path / "prices.parquet")
    done = cli("replay", "log.jsonl", "--tariff", f"prices.{kind},cache.toml", "--tokenizer", tokenizer, "--quiet")
    assert done.code == 0, done.err
    found = cli("report", "--by", "request", "--format", "json").rows()
    assert len(rows) == 9
    for row, result in zip(rows, found, strict=True):
        listed, charged = map(computed, row[-2:])
        assert result["request"] == row[0]
        assert Decimal(result["list"]) == listed / 1_000_000, row[0]
        assert Decimal(result["charged"]) == charged / 1_000_000, row[0]
        split = (result["read_tokens"], result["creation_5m_tokens"])
        assert split == ((0, 200) if row[0] == "r1" else (200, 0))


def test_the_files_of_the_page_are_sound(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "cache.toml").write_text(block("toml"))
    (tmp_path / "prices.csv").write_text(block("csv"))
    (tmp_path / "log.jsonl").write_bytes(lines(map(record, table())))
    done = cli("tariffs", "check", "prices.csv,cache.toml")
    assert (done.code, done.out) == (0, "prices.csv,cache.toml: nothing found\n")
    done = cli("tariffs", "check", "prices.csv,cache.toml", "--log", "log.jsonl", "--quiet", "--format", "csv")
    # r5 has no row of its window, r6 none of its purpose, r8 none of its window
    assert [line.split(",")[2] for line in done.out.splitlines()[1:]] == [
        "other_window", "other_purpose", "unknown_purpose", "other_window",
    ]  # fmt: skip
    assert done.code == 1


def test_the_first_ledger_of_the_page_loads(cli: Cli, tmp_path: Path) -> None:
    found = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert found
    (tmp_path / "t.toml").write_text(found[1])
    # the model is priced for ever and enabled from 2026 on
    assert cli("tariffs", "check", "t.toml").out == "t.toml: nothing found\n"


def test_the_page_names_every_kind_of_finding() -> None:
    rows = PAGE.partition("What `check` can find:")[2]
    assert dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", rows, re.MULTILINE)) == CODES
