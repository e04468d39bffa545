"""Tariff rows of every kind of file: refusals with their line, ambiguity, warnings, and sets of several files."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from config_files import load, refusal, write

from cachesim.config import load_config, load_tariff_set, load_tariff_sets
from cachesim.config.rows import decimals
from cachesim.errors import ConfigError, InputError, UsageError

JAN_US = 1_767_225_600_000_000
"""2026-01-01T00:00:00Z"""
CACHE = 'write_5m = "1.25"\nwrite_1h = "2"\nwrite_24h = "2.5"\nread = "0.1"\nmin_prefix_tokens = 1024\n'
CACHE_ROW = f'[[cache_tariff]]\nmodel = "m"\n{CACHE}'
BASE_ROW = '[[base_tariff]]\nmodel = "m"\ninput_per_mtok = "3"\noutput_per_mtok = "15"\n'
CSV_HEAD = (
    "alias,write_multiplier_5m,write_multiplier_1h,write_multiplier_24h,read_multiplier,min_prefix_tokens,valid_from"
)


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "start"),
    [
        ('read = "0.1"\n', "", "c.toml:1: read is missing"),
        ('write_24h = "2.5"\n', "", "c.toml:1: write_24h is missing"),
        ("min_prefix_tokens = 1024\n", "", "c.toml:1: min_prefix_tokens is missing"),
        ('model = "m"\n', "", "c.toml:1: model is missing"),
        ('model = "m"', 'model = ""', "c.toml:2: model is empty"),
        ('model = "m"', "model = 3", "c.toml:2: model is an integer, a string was expected"),
        ('read = "0.1"', 'reed = "0.1"', "c.toml:6: unknown key reed, did you mean read?"),
        ('read = "0.1"', 'read = "0.1"\nprincipal = "a"', "c.toml:7: principal is reserved"),
        ('read = "0.1"', 'read = "0.1"\nclass = "a"', "c.toml:7: class is reserved"),
        ('read = "0.1"', 'read = "-0.1"', "c.toml:6: read is negative, a number from 0 to 1000"),
        ('read = "0.1"', "read = nan", "c.toml:6: read is not finite"),
        ('read = "0.1"', "read = inf", "c.toml:6: read is not finite"),
        ('read = "0.1"', 'read = "0,1"', "c.toml:6: read is not a number"),
        ('read = "0.1"', 'read = "NaN"', "c.toml:6: read is not a number"),
        ('read = "0.1"', "read = true", "c.toml:6: read is a boolean"),
        ('read = "0.1"', "read = 1001", "c.toml:6: read is too large"),
        ('read = "0.1"', 'read = "0.123456789"', "c.toml:1: a multiplier of 9 decimals, at most 8"),
        ('read = "0.1"', 'read = "1e-21"', "c.toml:6: read is a number of 21 decimals"),
        ("= 1024", "= 10.5", "c.toml:7: min_prefix_tokens is not a token count"),
        ("= 1024", "= 2147483648", "c.toml:7: min_prefix_tokens is not a token count"),
        ("= 1024", '= "many"', "c.toml:7: min_prefix_tokens is not a number"),
        ("= 1024", "= 1024\nvalid_from = 2026-01-01", "c.toml:8: valid_from is a date or time, a time with an offset"),
        ("= 1024", "= 1024\nvalid_from = 2026-01-01T00:00:00", "c.toml:8: valid_from is a time without an offset"),
        ("= 1024", '= 1024\nvalid_from = "soon"', "c.toml:8: valid_from is not a time"),
        ("= 1024", "= 1024\nvalid_from = 3", "c.toml:8: valid_from is an integer"),
        (
            "= 1024",
            "= 1024\nvalid_from = 2026-01-01T01:00:00+01:00\nvalid_until = 2026-01-01T00:00:00Z",
            "c.toml:9: valid_until is not after valid_from",
        ),
    ],
)
def test_refusals_of_a_cache_tariff(old: str, new: str, start: str) -> None:
    assert old in CACHE_ROW
    assert refusal(CACHE_ROW.replace(old, new)).startswith(start)


@pytest.mark.parametrize(
    ("old", "new", "start"),
    [
        ('input_per_mtok = "3"\n', "", "c.toml:1: neither of input_per_mtok and input_per_token"),
        ('input_per_mtok = "3"\n', 'input_per_mtok = "3"\ninput_per_token = 1\n', "c.toml:4: both of input_per_mtok"),
        ('input_per_mtok = "3"', "input_per_mtok = -3", "c.toml:3: input_per_mtok is negative"),
        (
            'input_per_mtok = "3"',
            "input_per_mtok = 1e10",
            "c.toml:3: input_per_mtok is too large, a number from 0 to 1000000000",
        ),
        (
            'input_per_mtok = "3"',
            'input_per_mtok = "1e-15"',
            "c.toml:3: input_per_mtok is a number of 21 decimals per token",
        ),
        (
            'input_per_mtok = "3"',
            'input_per_mtok = "3"\npurpose = "bach"',
            "c.toml:4: purpose is 'bach', a known purpose (did",
        ),
        (
            'input_per_mtok = "3"',
            'input_per_mtok = "3"\ncompletion_window = 24',
            "c.toml:4: completion_window is an integer",
        ),
        (
            'input_per_mtok = "3"',
            'inputs_per_mtok = "3"',
            "c.toml:3: unknown key inputs_per_mtok, did you mean input_per_mtok?",
        ),
    ],
)
def test_refusals_of_a_base_tariff(old: str, new: str, start: str) -> None:
    assert refusal(BASE_ROW.replace(old, new)).startswith(start)


def test_lines_count_rows_across_comments_strings_and_quoted_headers() -> None:
    text = '# [[cache_tariff]]\n[policy]\ntelemetry_prefixes = ["""\n[[cache_tariff]]\n"""]\n' + CACHE_ROW
    text += '[[ "cache_tariff" ]] # two\nmodel = "n"\n' + CACHE.replace("read =", '"read" =').replace("0.1", "x")
    assert refusal(text).startswith("c.toml:18: read is not a number")


def test_lines_with_windows_line_ends_and_a_byte_order_mark() -> None:
    text = "\ufeff" + CACHE_ROW.replace('read = "0.1"', "read = -1").replace("\n", "\r\n")
    assert refusal(text).startswith("c.toml:6: read is negative")


def test_inline_rows_are_placed_at_their_key() -> None:
    assert refusal('strict_principals = true\ncache_tariff = [{model = "m"}]\n').startswith(
        "c.toml:2: write_5m is missing"
    )


def test_price_times_multiplier_must_fit_the_stored_decimals() -> None:
    # 3 + 13 decimals per mtok are 19 per token, and 2 of the multiplier 1.25: 21 of 20
    text = CACHE_ROW + BASE_ROW.replace('"3"', '"0.0000000000003"')
    assert refusal(text).startswith("c.toml:1: multiplied with the price at c.toml:8 this needs 21 decimals")
    # with model n priced alone the same digits are fine
    assert load(CACHE_ROW + BASE_ROW.replace('"3"', '"0.0000000000003"').replace('"m"', '"n"')).warnings == []
    assert [decimals(Decimal(text)) for text in ("1.2500", "1E+3", "0.00", "1e-7")] == [2, 0, 0, 7]


def window(start: str, end: str = "") -> str:
    return f"valid_from = 2026-01-{start}T00:00:00Z\n" + (f"valid_until = 2026-01-{end}T00:00:00Z\n" if end else "")


@pytest.mark.parametrize("row", [CACHE_ROW, BASE_ROW])
@pytest.mark.parametrize(("first", "second"), [("", ""), (window("01"), window("01", "02"))])
def test_rows_that_begin_together_are_ambiguous(row: str, first: str, second: str) -> None:
    a, b = write(row + first, "a.toml"), write("\n" + row + second, "b.toml")
    with pytest.raises(
        ConfigError, match=r"^b\.toml:2: .* tariffs of m.* here and at a\.toml:1 begin at the same time"
    ):
        load_config([a, b])


def test_different_purposes_and_windows_do_not_compete() -> None:
    rows = [BASE_ROW, BASE_ROW + 'purpose = "batch"\n', BASE_ROW + 'purpose = "batch"\ncompletion_window = "24h"\n']
    assert load("".join(rows)).warnings == []


def test_overlaps_and_gaps_are_warnings() -> None:
    text = CACHE_ROW + window("01", "03") + CACHE_ROW + window("02", "04") + CACHE_ROW + window("05")
    overlap, gap = load(text).warnings
    assert overlap.startswith(
        "c.toml:10: cache tariffs of m overlap with c.toml:1 from 2026-01-02T00:00:00Z: the later"
    )
    assert gap == "c.toml:19: cache tariffs of m leave a gap after c.toml:10, before 2026-01-05T00:00:00Z"
    assert load(CACHE_ROW + window("01", "03") + CACHE_ROW + window("03")).warnings == []


def test_odd_but_legal_rows_are_warnings() -> None:
    config = load(CACHE_ROW.replace("1024", "-1").replace('"m"', '"m*"'))
    assert [warning.partition(": ")[0] for warning in config.warnings] == ["c.toml:1", "c.toml:1"]
    assert config.tariff.gate("m*", 0) == 0


def test_a_tariff_set_of_several_files() -> None:
    cache = write(f"{CSV_HEAD}\nm,1.0,1,1.0,0.8,512,2026-01-01 00:00:00+00\n\nn,1,1,1,0.5,1,\n", "x/live.csv")
    base = write(
        "model,input_price_per_token,output_price_per_token,api_key_purpose,completion_window\nm,0.000003,1e-5,batch,24h\n",
        "base.CSV",
    )
    tariff = load_tariff_set(f"{cache}, {base}")
    assert tariff.name == "live+base"
    first, second = tariff.all_cache_rows
    assert (first.read, first.valid_from_us, first.source) == (Decimal("0.8"), JAN_US, "x/live.csv:2")
    assert (second.model, second.valid_from_us, second.source) == ("n", None, "x/live.csv:4")
    [row] = tariff.all_base_rows
    assert (row.purpose, row.completion_window, row.output_price) == ("batch", "24h", Decimal("0.00001"))
    assert tariff.warnings == ()


def test_a_parquet_ledger() -> None:
    import polars as pl

    columns = {
        "model": ["m", "m"],
        "write_multiplier_5m": [Decimal("1.25"), Decimal("1.5")],
        "write_multiplier_1h": [2, 2],
        "write_multiplier_24h": [2.5, 2.1],
        "read_multiplier": ["0.1", "0.2"],
        "min_prefix_tokens": [1024, 2048],
        "valid_from": [datetime(2026, 1, 1), datetime(2026, 1, 2)],
        "valid_until": [datetime(2026, 1, 2), None],
        "principal": pl.Series([None, None], dtype=pl.String),
        "note": ["a", "b"],
    }
    pl.DataFrame(columns).write_parquet("t.parquet")
    tariff = load_tariff_set("t.parquet")
    first, second = tariff.all_cache_rows
    assert tuple(first.multipliers) == (Decimal("0.1"), Decimal("1.25"), Decimal(2), Decimal("2.5"))
    assert second.multipliers.write_24h == Decimal("2.1"), "the shortest decimal of the float, not its binary value"
    assert (first.valid_from_us, first.valid_until_us) == (JAN_US, JAN_US + 86_400_000_000)
    assert (first.source, second.source) == ("t.parquet:1", "t.parquet:2")
    assert tariff.warnings == ("t.parquet: columns ignored: note",)


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("", "t.csv:1: no header"),
        ("model,x\n", "t.csv:1: the columns are not those of one ledger"),
        ("read_multiplier\n", "t.csv:1: no column model or alias"),
        ("model,alias,read_multiplier\n", "t.csv:1: model has two columns"),
        ("model,read_multipler\n", "t.csv:1: unknown column read_multipler, did you mean read_multiplier?"),
        ("model,read_multiplier,input_price_per_token\n", "t.csv:1: the columns are not those of one ledger"),
        ("model,read_multiplier\nm\n", "t.csv:2: 1 cells, 2 were expected"),
        ("model,read_multiplier\nm,1\n", "t.csv:2: write_multiplier_5m is missing"),
        (f"{CSV_HEAD}\nm,1,1,1,x,5,\n", "t.csv:2: read_multiplier is not a number"),
        (f'{CSV_HEAD}\nm,1,1,1,"0.1\n', "t.csv:2: not valid CSV"),
        (f"{CSV_HEAD}\nm,1,1,1,1,5,2026-01-01\n", "t.csv:2: valid_from is a time without an offset"),
        (f"{CSV_HEAD},principal\nm,1,1,1,1,5,,acme\n", "t.csv:2: principal is reserved"),
        (f"{CSV_HEAD}\n", "t.csv: no tariff"),
        ("alias,input_price_per_token\nm,1\n", "t.csv:2: output_price_per_token is missing"),
        (b"\xff", "t.csv:1: not UTF-8"),
    ],
)
def test_refusals_of_csv_ledgers(text: str | bytes, start: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_tariff_set(write(text, "t.csv"))
    assert str(caught.value).startswith(start)


def test_other_refusals_of_tariff_sets() -> None:
    with pytest.raises(InputError, match=r"^t\.yaml: not a kind of tariff file"):
        load_tariff_set(write("", "t.yaml"))
    with pytest.raises(InputError, match=r"^absent\.csv: cannot be read"):
        load_tariff_set("absent.csv")
    with pytest.raises(ConfigError, match=r"^t\.parquet: not readable as Parquet"):
        load_tariff_set(write("junk", "t.parquet"))
    with pytest.raises(UsageError, match="an empty file name"):
        load_tariff_set("a.toml,")


def test_a_purpose_that_is_an_empty_cell_never_matches() -> None:
    head = "model,input_price_per_token,output_price_per_token,api_key_purpose\n"
    tariff = load_tariff_set(write(head + "m,1,1,\n", "t.csv"))
    assert tariff.base_row("m", None, None, 0) is None
    assert tariff.warnings == ("t.csv:2: a base tariff without a purpose never matches",)


def test_sets_with_equal_names_are_named_by_their_spec() -> None:
    specs = [write(CACHE_ROW, name) for name in ("old/t.toml", "new/t.toml", "u.toml", "default.toml")]
    assert [tariff.name for tariff in load_tariff_sets(specs)] == ["old/t.toml", "new/t.toml", "u", "default.toml"]


def test_times_far_away_are_exact() -> None:
    row = load(CACHE_ROW + "valid_until = 9999-12-31T23:59:59.999999-14:00\n").tariff.all_cache_rows[0]
    day_after = datetime(9999, 12, 31, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    # a day and fourteen hours after the beginning of that day, less a microsecond
    assert row.valid_until_us == int(day_after.days) * 86_400_000_000 + 38 * 3_600_000_000 - 1
