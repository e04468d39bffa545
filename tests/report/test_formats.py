"""Names are data: whatever a log calls a model, no form of a report runs it, obeys it, or loses it."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesim.report.formats import GUARD, Format, Report, clean, write

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
COLUMNS = ("model", "charged", "token_hit_rate", "delta")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "'", "''=1", "＝1", "a|b", "<b>", "\x1b[31m", "\u202eabc"]
)


def written(model: str | None, form: Format) -> bytes:
    row = {"model": model, "charged": Decimal("1.50"), "token_hit_rate": 0.25, "delta": Decimal("-0.5")}
    out = io.BytesIO()
    write(Report("report", COLUMNS, [row]), form, out)
    return out.getvalue()


def cells(text: bytes) -> list[str]:
    return list(csv.reader(io.StringIO(text.decode(), newline="")))[1]


@given(TEXT)
def test_a_spreadsheet_runs_no_name_and_a_program_has_it_again(name: str) -> None:
    model, charged, rate, delta = cells(written(name, Format.CSV))
    assert not model.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert (model[1:] if model.startswith(GUARD) else model) == name
    assert (charged, rate, delta) == ("1.5", "0.25", "-0.5")  # figures are never altered, negative ones neither


@given(TEXT)
def test_json_holds_the_name_and_nothing_that_a_terminal_obeys(name: str) -> None:
    text = written(name, Format.JSON).decode()
    assert json.loads(text)["rows"][0]["model"] == name
    assert not [c for c in text if unicodedata.category(c) in ("Cc", "Zl", "Zp") or c in BIDI if c != "\n"]


@given(TEXT)
def test_a_name_stays_in_its_cell_of_a_markdown_table(name: str) -> None:
    lines = written(name, Format.MD).decode().splitlines()
    assert len(lines) == 3
    bare = lines[2].replace("\\\\", "").replace("\\|", "")
    assert bare.count("|") == len(COLUMNS) + 1
    assert lines[2].isprintable()


@given(TEXT)
def test_parquet_holds_the_name_as_it_is(name: str) -> None:
    frame = pl.read_parquet(io.BytesIO(written(name, Format.PARQUET)))
    assert frame.row(0) == (name, Decimal("1.5"), 0.25, Decimal("-0.5"))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b[2J", r"\x1b[2J"),  # clears a screen
        ("\x1b]8;;http://x\x07m\x1b]8;;\x07", r"\x1b]8;;http://x\x07m\x1b]8;;\x07"),  # a link
        ("a\u202eb", r"a\u202eb"),  # reads backwards
        ("a\u200bb", r"a\u200bb"),  # looks like `ab`
        ("\x9b31m", r"\x9b31m"),
        ("模型-é", "模型-é"),
    ],
)
def test_what_nobody_sees_is_shown(name: str, shown: str) -> None:
    assert clean(name) == shown
    assert all(c.isprintable() for c in written(name, Format.MD).decode() if c != "\n")


def test_empty_reports_keep_their_columns_and_types() -> None:
    out: dict[Format, Any] = {}
    for form in (Format.JSON, Format.CSV, Format.MD, Format.PARQUET):
        file = io.BytesIO()
        write(Report("report", COLUMNS, []), form, file)
        out[form] = file.getvalue()
    assert json.loads(out[Format.JSON])["rows"] == []
    assert out[Format.CSV] == b"model,charged,token_hit_rate,delta\n"
    assert out[Format.MD].splitlines() == [
        b"| model | charged | token_hit_rate | delta |", b"| --- | ---: | ---: | ---: |"
    ]  # fmt: skip
    assert pl.read_parquet(io.BytesIO(out[Format.PARQUET])).schema == {
        "model": pl.String, "charged": pl.Decimal(38, 20), "token_hit_rate": pl.Float64, "delta": pl.Decimal(38, 20)
    }  # fmt: skip
