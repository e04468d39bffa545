"""`cachesim tariffs show`: every row with its age and break-even, at a time, and in every form."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from cli_support import run
from ledger_files import base, cache, write

LOG_LINE = '{"at": "2026-03-11T12:00:00Z", "principal": "a", "body": {"model": "gpt-4o", "messages": []}}\n'


@pytest.fixture(autouse=True)
def _ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(
        "cachesim.toml",
        cache(valid_from="2026-01-01T00:00:00Z", valid_until="2026-02-01T00:00:00Z"),
        cache(read="0.8", write_5m="1", write_1h="1.5", valid_from="2026-02-01T00:00:00Z"),
        base(purpose='"batch"', completion_window='"24h"', input_per_mtok='"0.075"', name='"night"'),
        base(valid_from="2026-01-10T00:00:00Z"),
    )


def rows(capsys: pytest.CaptureFixture[str], *args: str) -> list[dict[str, Any]]:
    code, out, err = run(capsys, "tariffs", "show", "--format", "json", *args)
    assert (code, err) == (0, "")
    found: list[dict[str, Any]] = json.loads(out)["rows"]
    return found


def test_every_row_with_exact_values_its_place_and_its_break_even(capsys: pytest.CaptureFixture[str]) -> None:
    first, second, realtime, batch = rows(capsys)
    assert (first["ledger"], first["model"], first["source"]) == ("cache", "m", "cachesim.toml:1")
    assert (first["read"], first["write_5m"], first["write_24h"]) == ("0.1", "1.25", "2.5")
    # (1.25 − 1)/(1 − 0.1) = 0.28, (2 − 1)/0.9 = 1.11, (2.5 − 1)/0.9 = 1.67, each rounded up
    assert [first[f"break_even_reads_{tier}"] for tier in ("5m", "1h", "24h")] == [1, 2, 2]
    # (1 − 1)/(1 − 0.8) = 0, 0.5/0.2 = 2.5, 1.5/0.2 = 7.5
    assert [second[f"break_even_reads_{tier}"] for tier in ("5m", "1h", "24h")] == [0, 3, 8]
    assert (first["valid_from"], first["valid_until"]) == ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z")
    assert (realtime["purpose"], realtime["input_per_mtok"], realtime["output_per_mtok"]) == ("realtime", "3", "15")
    assert (batch["completion_window"], batch["input_per_mtok"], batch["name"]) == ("24h", "0.075", "night")
    assert batch["valid_from"] is None


def test_programs_get_no_age_unless_they_say_as_of_when(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "tariffs", "show", "-f", "json")
    made = json.loads(out)
    assert (code, made["as_of"], {row["age_days"] for row in made["rows"]}) == (0, None, {None})
    assert run(capsys, "tariffs", "show", "-f", "json")[1] == out
    code, out, _ = run(capsys, "tariffs", "show", "-f", "json", "--at", "now")
    assert json.loads(out)["as_of"].startswith("20")


def test_at_a_time_only_what_holds_then_and_ages_as_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(capsys, "--at", "2026-01-20T12:00:00Z")
    assert [(row["source"], row["age_days"]) for row in found] == [
        ("cachesim.toml:1", 19),  # from 1 to 20 January, the half day not counted
        ("cachesim.toml:25", 10),
        ("cachesim.toml:18", None),  # always
    ]
    assert {row["sets_price"] for row in found} == {True}
    assert [row["source"] for row in rows(capsys, "--at", "2025-12-31")] == ["cachesim.toml:18"]


def test_of_rows_that_hold_together_the_newer_sets_the_price(capsys: pytest.CaptureFixture[str]) -> None:
    write("t.toml", cache(), cache(min_prefix_tokens="5", valid_from="2026-01-01T00:00:00Z"), base())
    found = rows(capsys, "t.toml", "--at", "2026-06-01")
    assert [(row["source"], row["sets_price"]) for row in found[:2]] == [("t.toml:1", False), ("t.toml:8", True)]
    code, out, _ = run(capsys, "tariffs", "show", "t.toml", "--at", "2026-06-01")
    assert code == 0
    assert "sets price" in out


def test_the_end_of_a_log_tells_ages_and_prices_what_the_ledger_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    write("log.jsonl", LOG_LINE)
    found = rows(capsys, "--log", "log.jsonl")
    assert [row["age_days"] for row in found if row["model"] == "m"] == [69, 38, 60, None]
    [assumed] = [row for row in found if row["model"] == "gpt-4o"]
    assert assumed["assumed"] is True
    assert assumed["source"].startswith("genai-prices ")
    assert assumed["input_per_mtok"] == "2.5"
    code, out, _ = run(capsys, "tariffs", "show", "--log", "log.jsonl")
    assert code == 0
    assert assumed["source"].partition(": ")[0] in out


def test_a_ledger_without_cache_tariffs_shows_the_assumed_one(capsys: pytest.CaptureFixture[str]) -> None:
    write("t.toml", base())
    every, _ = rows(capsys, "t.toml")
    assert (every["model"], every["assumed"], every["source"], every["read"]) == ("*", True, "default", "0.1")


def test_one_model_of_several_sets(capsys: pytest.CaptureFixture[str]) -> None:
    write("t.toml", base("n"), base("o"))
    found = [(row["tariff"], row["model"]) for row in rows(capsys, "t.toml", "cachesim.toml", "--model", "n")]
    assert found == [("t.toml", "*"), ("t.toml", "n")]  # n is enabled by the tariff assumed for every model
    code, _, err = run(capsys, "tariffs", "show", "t.toml", "--model", "nn")
    assert (code, err) == (2, "cachesim: --model 'nn': unknown; did you mean n? (there are n, o)\n")


def test_people_see_two_tables(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    code, out, _ = run(capsys, "tariffs", "show", "--at", "2026-01-20")
    assert code == 0
    assert out.splitlines()[0] == "Tariff set default: 3 tariffs of 1 model; ages as of 2026-01-20T00:00:00Z."
    assert "1 / 2 / 2" in out
    assert "2026-01-01 – 2026-02-01" in out
    assert "from 2026-01-10" in out
    assert "batch 24h" in out
    assert "0.075" in out


@pytest.mark.parametrize("width", ["40", "80", "120", "200"])
def test_tables_fit_and_never_cut_a_model(
    width: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    write("t.toml", cache(b"provider/\x1b[31mmodel".decode(), name='"a name"'), base("長い名前のモデル"))
    code, out, _ = run(capsys, "tariffs", "show", "t.toml")
    assert code == 0
    assert "\x1b" not in out
    assert "長い名前のモデル" in "".join(out.split())


def test_forms_for_programs_hold_the_same(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import polars as pl

    made = rows(capsys)
    _, text, _ = run(capsys, "tariffs", "show", "-f", "csv")
    table = list(csv.DictReader(io.StringIO(text)))
    assert [row["input_per_mtok"] or None for row in table] == [row["input_per_mtok"] for row in made]
    code, out, _ = run(capsys, "tariffs", "show", "-f", "parquet", "-o", "t.parquet")
    assert (code, out) == (0, "")
    frame = pl.read_parquet(tmp_path / "t.parquet")
    assert frame["write_5m"].to_list() == [row["write_5m"] and Decimal(row["write_5m"]) for row in made]
    assert frame["min_prefix_tokens"].to_list() == [1024, 1024, None, None]
    _, text, _ = run(capsys, "tariffs", "show", "-f", "md")
    assert len(text.splitlines()) == 2 + 4


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "tariffs", "show", "absent.toml")[0] == 2
    assert run(capsys, "tariffs", "show", "--at", "soon")[0] == 2
    code, _, err = run(capsys, "tariffs", "show", "cachesim.toml", "--config", "cachesim.toml")
    assert code == 2
    assert "join files of one set with commas" in err
    write("t.toml", cache(read='"x"'))
    assert run(capsys, "tariffs", "show", "t.toml")[0] == 78
