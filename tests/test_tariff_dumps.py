"""Ledgers as dumps and as mixtures of TOML, CSV and Parquet: any resolves as a naive reading of the rules does."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_files import BASE_HEAD, CACHE_HEAD, base, cache, write

from cachesim.config import examine_tariff_set, load_config, load_tariff_set
from cachesim.core.ledger import PURPOSES, TariffSet
from cachesim.errors import ConfigError

START = datetime(2026, 1, 1, tzinfo=UTC)
KINDS = ("toml", "csv", "parquet")
Day = int | None


@dataclass(frozen=True)
class Base:
    """A base tariff whose price, in millionths, is its number."""

    number: int
    kind: str
    model: str
    purpose: str | None
    window: str | None
    begins: Day
    ends: Day


@dataclass(frozen=True)
class Cache:
    """A cache tariff whose read multiplier, in hundredths, is its number."""

    number: int
    kind: str
    model: str
    floor: int
    begins: Day
    ends: Day


def holds(row: Base | Cache, day: int) -> bool:
    return (row.begins is None or row.begins <= day) and (row.ends is None or day < row.ends)


def newest(rows: Sequence[Base] | Sequence[Cache]) -> int | None:
    return max(rows, key=lambda row: -99 if row.begins is None else row.begins).number if rows else None


def naive_base(rows: Sequence[Base], model: str, purpose: str | None, window: str | None, day: int) -> int | None:
    """Purpose and exact window, else purpose without a window, else realtime without one; within a step the newest."""
    asked = purpose if purpose in PURPOSES else "realtime"
    for step in ((asked, window), (asked, None), ("realtime", None)):
        found = [row for row in rows if row.model == model and holds(row, day) and (row.purpose, row.window) == step]
        if found:
            return newest(found)
    return None


def naive_floor(rows: Sequence[Cache], model: str, day: int) -> int | None:
    return min((max(row.floor, 0) for row in rows if row.model == model and holds(row, day)), default=None)


def at(day: int) -> datetime:
    return START + timedelta(days=day)


def at_us(day: int) -> int:
    return int(at(day).timestamp()) * 1_000_000


def store(rows: Sequence[Base | Cache], folder: Path, kind: str, stem: str) -> str | None:
    """The rows of one kind of file and one ledger in that file; None without any."""
    mine = [row for row in rows if row.kind == kind]
    if not mine:
        return None
    path = folder / f"{stem}.{kind}"
    if kind == "toml":
        path.write_text("".join(map(as_toml, mine)))
        return str(path)
    records = [as_record(row) for row in mine]
    if kind == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
        path.write_text(text.getvalue())
    else:
        import polars as pl

        types = dict.fromkeys(("valid_from", "valid_until"), pl.Datetime("us", "UTC"))
        names = {name: pl.String for name in ("alias", "api_key_purpose", "completion_window") if name in records[0]}
        pl.DataFrame(records, schema_overrides=types | names).write_parquet(path)
    return str(path)


def as_toml(row: Base | Cache) -> str:
    ends = (("valid_from", row.begins), ("valid_until", row.ends))
    times = {name: at(day).isoformat() for name, day in ends if day is not None}
    if isinstance(row, Cache):
        return cache(row.model, read=f'"{Decimal(row.number).scaleb(-2)}"', min_prefix_tokens=str(row.floor), **times)
    scope = {"purpose": f'"{row.purpose}"'} | ({} if row.window is None else {"completion_window": f'"{row.window}"'})
    return base(row.model, input_per_mtok=f'"{row.number}"', **scope, **times)


def as_record(row: Base | Cache) -> dict[str, object]:
    times = {"valid_from": None if row.begins is None else at(row.begins),
             "valid_until": None if row.ends is None else at(row.ends)}  # fmt: skip
    if isinstance(row, Cache):
        factors = (Decimal("1.25"), Decimal(2), Decimal("2.5"), Decimal(row.number).scaleb(-2))
        values: tuple[object, ...] = (row.model, *factors, row.floor, *times.values())
        return dict(zip(CACHE_HEAD.split(","), values, strict=True))
    prices = (Decimal(row.number).scaleb(-6), Decimal("0.000015"))
    return dict(zip(BASE_HEAD.split(","), (row.model, *prices, row.purpose, row.window, *times.values()), strict=True))


days = st.none() | st.integers(0, 6)
models = st.sampled_from(["m", "qwen/n"])
kinds = st.sampled_from(KINDS)
spans = st.tuples(days, days).filter(lambda span: None in span or span[0] < span[1])  # type: ignore[operator]
# TOML cannot say "no purpose" and takes no unknown one; a dump may hold both.
scopes = st.tuples(kinds, st.sampled_from([*PURPOSES, None, "continuation"])).filter(
    lambda scope: scope[0] != "toml" or scope[1] in PURPOSES
)
base_rows = st.lists(
    st.tuples(scopes, models, st.sampled_from([None, "24h", "1h"]), spans),
    max_size=8,
    unique_by=lambda row: (row[0][1], row[1], row[2], row[3][0]),
).map(lambda rows: [Base(i, k, m, p, w, b, e) for i, ((k, p), m, w, (b, e)) in enumerate(rows, 1)])
cache_rows = st.lists(
    st.tuples(kinds, models, st.integers(-1, 4), spans), max_size=5, unique_by=lambda row: (row[1], row[3][0])
).map(lambda rows: [Cache(i, k, m, f, b, e) for i, (k, m, f, (b, e)) in enumerate(rows, 1)])


def load(bases: Sequence[Base], caches: Sequence[Cache]) -> TariffSet:
    with TemporaryDirectory() as folder:
        files = [
            store(rows, Path(folder), kind, stem) for stem, rows in (("b", bases), ("c", caches)) for kind in KINDS
        ]
        return load_tariff_set(",".join(file for file in files if file))


@settings(max_examples=60, deadline=None)
@given(base_rows.filter(bool), cache_rows)
def test_any_mixture_of_files_resolves_as_a_naive_reading(bases: list[Base], caches: list[Cache]) -> None:
    tariff = load(bases, caches)
    for model in {row.model for row in bases}:
        for day in range(-1, 8):
            for purpose in (*PURPOSES, None, "continuation", "odd"):
                for window in (None, "24h", "1h", "72h"):
                    number = tariff.base_row(model, purpose, window, at_us(day))
                    found = None if number is None else int(tariff.all_base_rows[number].input_price * 1_000_000)
                    assert found == naive_base(bases, model, purpose, window, day)
    for model in ("m", "qwen/n") if caches else ():
        for day in range(-1, 8):
            assert tariff.gate(model, at_us(day)) == naive_floor(caches, model, day)
            number = tariff.cache_row(model, at_us(day))
            read = None if number is None else int(tariff.all_cache_rows[number].read * 100)
            assert read == newest([row for row in caches if row.model == model and holds(row, day)])


@given(base_rows.filter(bool))
@settings(max_examples=20, deadline=None)
def test_the_order_of_the_files_decides_nothing(bases: list[Base]) -> None:
    with TemporaryDirectory() as folder:
        files = [file for kind in KINDS if (file := store(bases, Path(folder), kind, "b"))]
        one, other = load_tariff_set(",".join(files)), load_tariff_set(",".join(reversed(files)))
    for purpose, window, day in (("batch", "24h", 3), ("realtime", None, 0), ("odd", "1h", 5)):
        for model in {row.model for row in bases}:
            prices = []
            for tariff in (one, other):
                number = tariff.base_row(model, purpose, window, at_us(day))
                prices.append(None if number is None else tariff.all_base_rows[number].input_price)
            assert prices[0] == prices[1]


@pytest.fixture
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_folder")
class TestDumps:
    """What psql and other programs write of upstream's two tables."""

    def test_a_table_without_the_join_says_what_to_join(self) -> None:
        write("t.csv", "id,deployed_model_id,input_price_per_token,output_price_per_token\n1,2,0.1,0.1\n")
        with pytest.raises(ConfigError, match=r"^t\.csv:1: no column model or alias.*join deployed_models"):
            load_tariff_set("t.csv")

    def test_postgres_writes_times_and_numbers_its_own_way(self) -> None:
        head = "id,deployed_model_id,alias,name,input_price_per_token,output_price_per_token,valid_from,valid_until,"
        write(
            "t.csv",
            f"{head}api_key_purpose,completion_window,user_id,serving_class\n",
            "7f,9a,m,Night,0.00000150,0.000007500000,2026-01-01 00:00:00.25+00,2026-02-01 01:00:00+01,batch,24h,,\n",
        )
        tariff = load_tariff_set("t.csv")
        [row] = tariff.all_base_rows
        assert tariff.warnings == ()
        assert (row.name, row.input_price, row.output_price) == ("Night", Decimal("0.0000015"), Decimal("0.0000075"))
        assert (row.valid_from_us, row.valid_until_us) == (at_us(0) + 250_000, at_us(31))

    @pytest.mark.parametrize("column", ["user_id", "serving_class", "principal", "class"])
    def test_scoped_rows_are_refused_by_the_name_of_their_column(self, column: str) -> None:
        write("t.csv", f"{BASE_HEAD},{column}\n", "m,1e-6,1e-6,realtime,,,,\n", "m,1e-6,1e-6,realtime,,,,acme\n")
        with pytest.raises(
            ConfigError, match=rf"^t\.csv:3: {column} is reserved for scoped tariffs.*leave such rows out"
        ):
            load_tariff_set("t.csv")

    def test_rows_closed_as_they_began_are_history(self) -> None:
        rows = [f"m,{price}e-6,0,realtime,,2026-01-01T00:00:00Z,{until}\n" for price, until in
                ((1, "2026-01-01T00:00:00Z"), (2, ""))]  # fmt: skip
        write("t.csv", f"{BASE_HEAD}\n", *rows)
        tariff = load_tariff_set("t.csv")
        assert tariff.base_row("m", None, None, at_us(0)) == 1
        assert tariff.warnings == ("t.csv:2: a tariff that ends as it begins never holds",)
        write("t.csv", f"{BASE_HEAD}\n", rows[0].replace(",2026-01-01T00:00:00Z\n", ",2025-12-31T00:00:00Z\n"))
        with pytest.raises(ConfigError, match="valid_until is not after valid_from"):
            load_tariff_set("t.csv")

    def test_the_configuration_takes_a_dump_beside_its_own_rows(self) -> None:
        write("cachesim.toml", cache(), "[policy]\nwalk_back = 20\n")
        write("prices.CSV", f"{BASE_HEAD}\nm,0.000003,0.000015,realtime,,,\n")
        config = load_config(["cachesim.toml", "prices.CSV"])
        assert config.policy_rules == {"walk_back": 20}
        assert config.files == ("cachesim.toml", "prices.CSV")
        assert [row.source for row in (*config.tariff.all_cache_rows, *config.tariff.all_base_rows)] == [
            "cachesim.toml:1", "prices.CSV:2",
        ]  # fmt: skip

    def test_times_beyond_the_calendar_do_not_break_a_message(self) -> None:
        far = "9999-12-31T23:59:59-14:00"
        write("t.toml", cache(valid_until="9999-12-31T00:00:00Z"), cache(valid_from=far))
        [gap] = load_tariff_set("t.toml").warnings
        assert gap == "t.toml:9: cache tariffs of m leave a gap after t.toml:1, before 9999-12-31"


ODD_CELLS = ["", "m", "1e-6", "-1", "1e400", "NaN", "2026-01-01T00:00:00Z", "2026-13-01", "batch", "\ufeff", "=1+1"]
CELLS = st.text(max_size=12) | st.sampled_from(ODD_CELLS) | st.integers().map(str)
ODD_VALUES = st.one_of(
    st.none(), st.booleans(), st.floats(), st.binary(max_size=4), st.dates(), st.lists(st.integers(0, 9))
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([BASE_HEAD, CACHE_HEAD]), st.lists(st.lists(CELLS, min_size=7, max_size=8), max_size=4))
def test_any_csv_is_a_ledger_or_has_findings_with_their_place(head: str, rows: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([head.split(","), *rows])
    with TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_text(text.getvalue(), encoding="utf-8", newline="")
        try:
            _, findings = examine_tariff_set(str(path))
        except ConfigError as error:
            refused = str(error)
        else:
            refused = next((str(finding) for finding in findings if finding.fatal), "")
        if refused:
            assert refused.startswith(str(path))
            with pytest.raises(ConfigError):
                load_tariff_set(str(path))
        else:
            assert load_tariff_set(str(path)).warnings == tuple(map(str, findings))


@settings(max_examples=60, deadline=None)
@given(st.lists(ODD_VALUES, min_size=7, max_size=7))
def test_any_parquet_without_a_model_is_one_clear_error(values: list[object]) -> None:
    import polars as pl

    columns = {name: [value] for name, value in zip(BASE_HEAD.split(","), values, strict=True)}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "t.parquet"
        pl.DataFrame(columns).write_parquet(path)
        with pytest.raises(ConfigError, match=r"t\.parquet:1: "):
            load_tariff_set(str(path))
