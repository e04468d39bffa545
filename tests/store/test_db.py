from __future__ import annotations

import subprocess
import sys
import threading
from decimal import Decimal
from pathlib import Path

import duckdb
import polars as pl
import pytest

from cachesim.errors import ConfigError, DatabaseBusy, InputError
from cachesim.store import db, schema
from cachesim.store.deletion import delete_run

ROOT = Path(__file__).parents[2]
CHILD = """
import sys
from cachesim.store.db import open_database, transaction, insert_frame
con = open_database(sys.argv[1])
def add(n):
    insert_frame(con, "token_counts", {"version": ["v"] * n, "digest": [b"d"] * n, "tokens": list(range(n))})
"""


def child(path: Path, then: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD + then, str(path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )


def test_a_new_database_has_the_schema_and_its_version(tmp_path: Path) -> None:
    with db.open_database(str(tmp_path / "a.duckdb")) as con:
        assert con.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone() == (
            str(schema.SCHEMA_VERSION),
        )
        assert con.execute("SELECT count(*) FROM v_requests").fetchone() == (0,)
        assert con.execute("SELECT current_setting('TimeZone')").fetchone() == ("UTC",)
        assert con.execute("SELECT current_setting('autoinstall_known_extensions')").fetchone() == (False,)
        assert con.execute("SELECT current_setting('temp_directory')").fetchone() == (f"{tmp_path}/a.duckdb.tmp",)
        assert con.execute("SELECT current_setting('memory_limit')").fetchone() == ("488.2 MiB",)  # 512e6 / 2**20


def test_reopening_keeps_the_data_also_read_only(tmp_path: Path) -> None:
    path = str(tmp_path / "a.duckdb")
    with db.open_database(path) as con:
        db.insert_frame(con, "token_counts", {"version": ["v"], "digest": [b"\x00\xff"], "tokens": [7]})
    with db.open_database(path, read_only=True) as con:
        assert con.execute("FROM token_counts").fetchall() == [("v", b"\x00\xff", 7)]
        with pytest.raises(duckdb.Error):
            con.execute("DELETE FROM token_counts")


def test_a_missing_database_names_the_command_that_makes_one(tmp_path: Path) -> None:
    for options in ({"must_exist": True}, {"read_only": True}):
        with pytest.raises(InputError, match="cachesim replay"):
            db.open_database(str(tmp_path / "no.duckdb"), **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"not a database at all " * 500])
def test_another_kind_of_file_is_an_input_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.duckdb"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a DuckDB file"):
        db.open_database(str(path))
    assert path.read_bytes() == content


def test_a_directory_and_a_missing_directory_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a directory"):
        db.open_database(str(tmp_path))
    with pytest.raises(InputError, match="does not exist"):
        db.open_database(str(tmp_path / "no" / "x.duckdb"))


@pytest.mark.parametrize(
    ("message", "kind", "words"),
    [
        ('IO Error: Cannot open file "/x": Permission denied', InputError, "no permission"),
        ('IO Error: Cannot open file "/x": Read-only file system', InputError, "no permission"),
        ("IO Error: Trying to read a database file with version number 999, but …", ConfigError, "storage format"),
        ("IO Error: something new\nwith details", InputError, "something new"),
    ],
)
def test_what_duckdb_says_becomes_what_to_do(
    monkeypatch: pytest.MonkeyPatch, message: str, kind: type[Exception], words: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise duckdb.IOException(message)

    monkeypatch.setattr(duckdb, "connect", fail)
    with pytest.raises(kind, match=words) as caught:
        db.open_database("x.duckdb")
    assert "\n" not in str(caught.value)


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "other.duckdb")
    with duckdb.connect(path) as con:
        con.execute("CREATE TABLE invoices (n INTEGER)")
    with pytest.raises(InputError, match="not one of cachesim"):
        db.open_database(path)
    with duckdb.connect(path) as con:
        assert con.execute("SHOW TABLES").fetchall() == [("invoices",)]


# Takes away what version 3 added to the schema.
TO_VERSION_2 = """
DROP VIEW v_node_tokens; DROP TABLE sensitivity;
ALTER TABLE trace_tokenizers DROP COLUMN counts_no; ALTER TABLE trace_tokenizers DROP COLUMN model;
ALTER TABLE trace_tokenizers DROP COLUMN factor_e4; ALTER TABLE trace_tokenizers DROP COLUMN origin;
ALTER TABLE trace_tokenizers DROP COLUMN fitted_requests; ALTER TABLE trace_tokenizers DROP COLUMN checked_requests;
ALTER TABLE trace_tokenizers DROP COLUMN residual_median; ALTER TABLE trace_tokenizers DROP COLUMN residual_p95;
ALTER TABLE requests DROP COLUMN messages; ALTER TABLE requests DROP COLUMN tools;
"""


def set_version(path: str, version: int) -> None:
    with db.open_database(path) as con:
        con.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", [str(version)])


def test_a_newer_schema_is_refused_naming_both_versions(tmp_path: Path) -> None:
    path = str(tmp_path / "a.duckdb")
    set_version(path, 99)
    with pytest.raises(ConfigError, match=f"schema version 99, but .* up to {schema.SCHEMA_VERSION}"):
        db.open_database(path)


@pytest.mark.parametrize("read_only", [False, True])
def test_an_older_schema_is_upgraded_step_by_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_only: bool
) -> None:
    path = str(tmp_path / "a.duckdb")
    set_version(path, schema.SCHEMA_VERSION)
    first = schema.SCHEMA_VERSION
    monkeypatch.setattr(db, "SCHEMA_VERSION", first + 2)
    monkeypatch.setitem(db.UPGRADES, first, lambda con: con.execute("CREATE TABLE one (n INTEGER)"))
    monkeypatch.setitem(db.UPGRADES, first + 1, lambda con: con.execute("ALTER TABLE one RENAME TO two"))
    with db.open_database(path, read_only=read_only) as con:
        assert con.execute("SELECT count(*) FROM two").fetchone() == (0,)
        assert con.execute("SELECT value FROM meta").fetchone() == (str(first + 2),)


def test_a_failing_upgrade_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "a.duckdb")
    set_version(path, schema.SCHEMA_VERSION)

    def step(con: duckdb.DuckDBPyConnection) -> None:
        con.execute("CREATE TABLE half (n INTEGER)")
        raise KeyboardInterrupt

    monkeypatch.setattr(db, "SCHEMA_VERSION", schema.SCHEMA_VERSION + 1)
    monkeypatch.setitem(db.UPGRADES, schema.SCHEMA_VERSION, step)
    with pytest.raises(KeyboardInterrupt):
        db.open_database(path)
    monkeypatch.undo()
    with db.open_database(path) as con:
        assert con.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'half'").fetchone() == (0,)


def test_a_locked_database_says_who_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "a.duckdb"
    holder = child(path, "print('open', flush=True); input()")
    try:
        assert holder.stdout
        assert holder.stdout.readline() == "open\n"
        for read_only in (False, True):
            with pytest.raises(DatabaseBusy, match=rf"locked by process {holder.pid}; wait .*--db"):
                db.open_database(str(path), read_only=read_only)
    finally:
        holder.communicate("\n")
    db.open_database(str(path), must_exist=True).close()


@pytest.mark.parametrize("read_only", [False, True])
def test_kill_9_inside_a_transaction_keeps_what_was_committed(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "a.duckdb"
    victim = child(path, "add(1000)\ncon.execute('BEGIN'); add(200_000)\nprint('inside', flush=True); input()")
    assert victim.stdout
    assert victim.stdout.readline() == "inside\n"
    victim.kill()
    victim.communicate()
    with db.open_database(str(path), read_only=read_only) as con:
        assert con.execute("SELECT count(*), sum(tokens) FROM token_counts").fetchone() == (1000, 999 * 1000 // 2)


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit, duckdb.Error])
def test_a_transaction_rolls_back_on_anything(failure: type[BaseException]) -> None:
    def fail(con: duckdb.DuckDBPyConnection) -> None:
        with db.transaction(con):
            con.execute("INSERT INTO meta VALUES ('k', 'v')")
            raise failure

    con = db.open_database(db.IN_MEMORY)
    with pytest.raises(failure):
        fail(con)
    assert con.execute("SELECT count(*) FROM meta WHERE key = 'k'").fetchone() == (0,)
    with db.transaction(con):
        con.execute("INSERT INTO meta VALUES ('k', 'v')")
    assert con.execute("SELECT value FROM meta WHERE key = 'k'").fetchone() == ("v",)


def test_insert_frame_casts_every_type_of_the_schema() -> None:
    con = db.open_database(db.IN_MEMORY)
    at = 1_767_225_600_000_001  # 2026-01-01T00:00:00.000001Z
    rows = db.insert_frame(
        con,
        "index_entries",
        {
            "run_no": [1], "variant_no": [0], "principal_id": ["p"], "virtual_model": ["m"], "tokenizer_version": ["t"],
            "prefix_hash": [b"\x00\xfe"], "cumulative_token_count": [2**40], "ttl_tier": ["5m"],
            "created_at": [at], "expires_at": [at + 1],
        },
    )  # fmt: skip
    assert rows == 1
    assert con.execute(
        "SELECT epoch_us(created_at), epoch_us(expires_at), prefix_hash, cumulative_token_count FROM index_entries"
    ).fetchone() == (at, at + 1, b"\x00\xfe", 2**40)


def test_insert_frame_keeps_lists_and_exact_money() -> None:
    con = db.open_database(db.IN_MEMORY)
    prompts = {name: [0, 0] for name in ("trace_no", "seq", "rules_no", "end_node", "block_count", "automatic")}
    ends = {name: [-1, -1] for name in ("last_user", "last_system", "last_tool")}
    db.insert_frame(con, "prompts", {**prompts, **ends, "marker_blocks": [(), (1, 2)], "marker_facts": [(), (0, 0)]})
    assert con.execute("SELECT marker_blocks, ingress_error FROM prompts").fetchall() == [([], None), ([1, 2], None)]

    exact = [
        Decimal("0.00000000000000000001"),
        Decimal("123456789012345678.12345678901234567891"),
        Decimal("1E-7"),
        Decimal(0),
    ]
    names = ("uncached", "read", "creation_5m", "creation_1h", "creation_24h", "completion")
    columns = {
        "run_no": [1] * 4,
        "price_no": range(4),
        "tariff": ["t"] * 4,
        "base_source": ["b"] * 4,
        "assumed": [False] * 4,
    }
    db.insert_frame(con, "unit_prices", {**columns, **dict.fromkeys(names, exact)})
    assert [row[0] for row in con.execute("SELECT read FROM unit_prices ORDER BY price_no").fetchall()] == exact
    assert con.execute("SELECT cache_source FROM unit_prices LIMIT 1").fetchone() == (None,)


def test_insert_frame_refuses_what_it_would_have_to_bend() -> None:
    con = db.open_database(db.IN_MEMORY)
    with pytest.raises(KeyError):
        db.insert_frame(con, "token_counts", {"nonsense": [1]})
    with pytest.raises(TypeError):
        db.insert_frame(con, "token_counts", {"version": ["v"], "digest": [b"d"], "tokens": [1.5]})
    assert db.insert_frame(con, "token_counts", {"version": [], "digest": [], "tokens": []}) == 0
    frame_columns = {
        "version": pl.Series(["v"]),
        "digest": pl.Series([b"d"]),
        "tokens": pl.Series([3], dtype=pl.UInt32),
    }
    assert db.insert_frame(con, "token_counts", frame_columns) == 1
    assert con.execute("FROM token_counts").fetchall() == [("v", b"d", 3)]


def test_two_threads_with_own_cursors_insert_side_by_side() -> None:
    con = db.open_database(db.IN_MEMORY)

    def add(tokens: int) -> None:
        columns = {"version": ["v"] * 100, "digest": [b"d"] * 100, "tokens": [tokens] * 100}
        db.insert_frame(con.cursor(), "token_counts", columns)

    threads = [threading.Thread(target=add, args=(n,)) for n in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert con.execute("SELECT count(*), sum(tokens) FROM token_counts").fetchone() == (200, 300)


def test_deleting_a_run_keeps_a_trace_that_another_run_uses() -> None:
    con = db.open_database(db.IN_MEMORY)
    con.execute("INSERT INTO traces VALUES (1, 't', 0, '{}', '[]', '[]')")
    con.execute("INSERT INTO nodes VALUES (1, 0, -1, 0, 0, 'x'::BLOB)")
    for run_no in (1, 2):
        con.execute(
            "INSERT INTO runs (run_no, digest, trace_no, cachesim_version, options, assumptions, problems)"
            " VALUES (?, 'd', 1, '0', '{}', '[]', '{}')",
            [run_no],
        )
        con.execute("INSERT INTO variants VALUES (?, 0, 'policy', 'p', 't', 'm', '{}', 0, NULL)", [run_no])
    assert delete_run(con, 1) is False
    assert con.execute("SELECT (SELECT count(*) FROM nodes), (SELECT count(*) FROM variants)").fetchone() == (1, 1)
    assert delete_run(con, 2) is True
    left = con.execute("SELECT table_name FROM duckdb_tables() WHERE estimated_size > 0").fetchall()
    assert left == [("meta",)]


def test_a_database_of_version_1_gains_what_sweeps_and_moved_counts_need(tmp_path: Path) -> None:
    """Made from today's schema by taking away what versions 2 and 3 added; what was in it stays."""
    path = str(tmp_path / "old.duckdb")
    with db.open_database(path) as con:
        con.execute("DROP VIEW v_requests; DROP VIEW v_runs; DROP TABLE swept; DROP TABLE sweep_groups")
        con.execute("ALTER TABLE variants DROP COLUMN ttl; ALTER TABLE unit_prices DROP COLUMN creation_custom")
        con.execute("INSERT INTO variants VALUES (1, 0, 'policy', 'p', 't', 'm', '{}', 0)")
        con.execute(TO_VERSION_2)
    set_version(path, 1)
    with db.open_database(path, read_only=True) as con:
        assert con.execute("SELECT run_no, ttl FROM variants").fetchall() == [(1, None)]
        assert con.execute("SELECT count(*) FROM swept JOIN sweep_groups USING (run_no)").fetchone() == (0,)
        assert con.execute("SELECT creation_custom FROM unit_prices").fetchall() == []
        assert con.execute("SELECT * FROM sensitivity").fetchall() == []


def test_a_database_of_version_2_keeps_its_counts(tmp_path: Path) -> None:
    """Nothing in it is calibrated: every tokenizer counts itself, and the view gives its counts as they are."""
    path = str(tmp_path / "old.duckdb")
    with db.open_database(path) as con:
        con.execute(TO_VERSION_2)
        con.execute("INSERT INTO trace_tokenizers VALUES (1, 0, 'default', 'v', false), (1, 1, 'a.json', 'w', true)")
        con.execute("INSERT INTO node_tokens VALUES (1, 0, 0, 10), (1, 0, 1, 21), (1, 1, 0, 9), (1, 1, 1, 18)")
    set_version(path, 2)
    with db.open_database(path, read_only=True) as con:
        assert con.execute("SELECT tokenizer_no, cumulative_tokens FROM v_node_tokens ORDER BY ALL").fetchall() == [
            (0, 10), (0, 21), (1, 9), (1, 18),
        ]  # fmt: skip
        assert con.execute("SELECT DISTINCT counts_no, model, factor_e4 FROM trace_tokenizers").fetchall() == [
            (None, None, None)
        ]


@pytest.mark.parametrize("name", ["log.jsonl", "prices.csv", "notes.txt"])
def test_a_data_file_is_no_database_although_duckdb_would_open_it(tmp_path: Path, name: str) -> None:
    """DuckDB shows the data beside a database in memory: a run stored there would be gone at the end."""
    path = tmp_path / name
    path.write_text('{"a": 1}\n')
    for read_only in (False, True):
        with pytest.raises(InputError, match="not a DuckDB file, expected a run database"):
            db.open_database(str(path), read_only=read_only)
    assert path.read_text() == '{"a": 1}\n'
