"""A stored run's plan and trace come back as they were, or a message says what is missing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from e2e_support import Cli, Connect
from worked_log import LOG, RECORDS, TARIFF

from cachesim.config import load_tariff_sets
from cachesim.core.policy import PRESETS, BodyRules
from cachesim.errors import CannotEvaluate
from cachesim.run import run_digest
from cachesim.store.trace_reader import load_trace
from cachesim.stored_plan import stored_plan, trace_with_rules

OLD, NEW = PRESETS["dwctl-8.63"], PRESETS["dwctl-10.13"]
ONLY_TOOLS = replace(OLD, hash_tools=True).body_rules
OTHER_PRICES = TARIFF.replace('read = "0.1"', 'read = "0.2"')


@pytest.fixture
def options(cli: Cli, tmp_path: Path, tokenizer: Path) -> tuple[str, ...]:
    (tmp_path / "log.jsonl").write_bytes(LOG)
    (tmp_path / "prices.toml").write_text(TARIFF)
    (tmp_path / "other.toml").write_text(OTHER_PRICES)
    return ("--tokenizer", str(tokenizer))


def test_the_plan_of_a_replay_comes_back_whole(cli: Cli, options: tuple[str, ...], con: Connect) -> None:
    cli("replay", "log.jsonl", *options, "--policy", "dwctl-8.63", "--policy", "dwctl-10.13", "--tariff", "prices.toml",
        "--tariff", "other.toml", "--markers", "last-user:1h")  # fmt: skip
    connection = con()
    plan = stored_plan(connection, 1)
    assert plan.policies == [OLD, NEW]
    assert str(plan.strategy) == "last-user:1h"
    for found, read in zip(plan.tariffs, load_tariff_sets(["prices.toml", "other.toml"]), strict=True):
        assert (found.name, found.by_default) == (read.name, False)
        assert found.all_cache_rows == read.all_cache_rows  # with the source, "prices.toml:2"
        assert found.all_base_rows == read.all_base_rows
        assert found.gates_key() == read.gates_key()
    digest = connection.execute("SELECT digest FROM runs").fetchone()[0]
    assert run_digest(load_trace(connection, 1), plan, None) == digest


def test_defaults_and_assumed_prices_come_back_as_such(cli: Cli, options: tuple[str, ...], con: Connect) -> None:
    assert (
        cli("replay", "log.jsonl", *options, "--set", "min_prefix_tokens=3", "--set", "tier_seconds={5m=60}").code == 0
    )
    plan = stored_plan(con(), 1)
    (policy,), (tariff,) = plan.policies, plan.tariffs
    assert policy.name == "dwctl-10.13 [min_prefix_tokens=3, tier_seconds={5m=60}]"
    assert policy == replace(NEW, name=policy.name, min_prefix_tokens=3, tier_seconds=(60, 3600, 86400))
    assert (tariff.name, tariff.by_default, tariff.gate("anything", 0)) == ("default", True, 1024)
    assert tariff.base_row("no-such-model", None, None, 0) is None
    row = tariff.base_row("gpt-4o", None, None, 1_767_225_600_000_000)
    assert row is not None
    assert tariff.all_base_rows[row].assumed


def test_of_a_sweep_the_baseline_alone_comes_back(cli: Cli, options: tuple[str, ...], con: Connect) -> None:
    cli("replay", "log.jsonl", *options, "--policy", "dwctl-8.63", "--policy", "dwctl-10.13")
    connection = con()
    cells = connection.execute("SELECT column_name FROM duckdb_columns() WHERE table_name = 'swept'").fetchall()
    values = ", ".join("NULL" if name == "price_no" else "1" if name == "run_no" else "0" for (name,) in cells)
    connection.execute(f"INSERT INTO swept VALUES ({values})")
    assert stored_plan(connection, 1).policies == [OLD]


def test_a_run_of_an_older_cachesim_says_what_it_lacks(cli: Cli, options: tuple[str, ...], con: Connect) -> None:
    cli("replay", "log.jsonl", *options)
    connection = con()
    connection.execute("""UPDATE runs SET options = '{"plan": {}, "files": []}'""")
    with pytest.raises(CannotEvaluate, match="did not keep the tariff default; replay the log again"):
        stored_plan(connection, 1)
    connection.execute("UPDATE traces SET facts = '{}'")
    with pytest.raises(CannotEvaluate, match="did not keep how it read the log"):
        trace_with_rules(connection, 1, [ONLY_TOOLS])
    connection.execute("""UPDATE variants SET rules = '{"hash_tools": true}' WHERE kind = 'policy'""")
    with pytest.raises(CannotEvaluate, match="knew other rules of"):
        stored_plan(connection, 1)


def test_the_stored_trace_serves_rules_it_knows(
    cli: Cli, options: tuple[str, ...], con: Connect, tmp_path: Path
) -> None:
    cli("replay", "log.jsonl", *options)
    (tmp_path / "log.jsonl").unlink()
    trace = trace_with_rules(con(), 1, [NEW.body_rules, OLD.body_rules])
    assert (trace.trace_no, trace.request_count) == (1, len(RECORDS))


def read_again(con: duckdb.DuckDBPyConnection, rules: BodyRules) -> int:
    trace = trace_with_rules(con, 1, [NEW.body_rules, rules])
    assert rules in trace.rules
    columns = "seq, file_no, line, at_us, principal, model, prompt_tokens, tokenizer_no"
    same = f"SELECT {columns} FROM requests WHERE trace_no = ?"
    assert con.execute(same, [trace.trace_no]).fetchall() == con.execute(same, [1]).fetchall()
    return trace.trace_no


def test_other_rules_read_the_log_again_as_it_was_read_then(
    cli: Cli, options: tuple[str, ...], con: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = ("--since", "2026-03-01T22:01:00Z", "--principal", "nobody")
    assert cli("replay", "log.jsonl", *options, *limits).code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    connection = con()
    assert read_again(connection, ONLY_TOOLS) == 2
    assert read_again(connection, ONLY_TOOLS) == 2  # found, not read a third time


def test_another_copy_under_the_same_name_will_do(
    cli: Cli, options: tuple[str, ...], con: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("replay", "log.jsonl", *options)
    (tmp_path / "moved").mkdir()
    (tmp_path / "log.jsonl").rename(tmp_path / "moved" / "log.jsonl")
    connection = con()
    with pytest.raises(CannotEvaluate, match=r"log\.jsonl: .* the file is gone .*put it back"):
        trace_with_rules(connection, 1, [ONLY_TOOLS])
    monkeypatch.chdir(tmp_path / "moved")
    assert read_again(connection, ONLY_TOOLS) == 2


def test_a_changed_log_or_tokenizer_is_refused(cli: Cli, con: Connect, tmp_path: Path, tokenizer: Path) -> None:
    own = tmp_path / "tokenizer.json"
    own.write_bytes(tokenizer.read_bytes())
    (tmp_path / "log.jsonl").write_bytes(LOG)
    cli("replay", "log.jsonl", "--tokenizer", own)
    connection = con()
    (tmp_path / "log.jsonl").write_bytes(LOG.replace(b"a1", b"A1"))  # the same size
    with pytest.raises(CannotEvaluate, match=r"log\.jsonl: .* has changed since the run was made"):
        trace_with_rules(connection, 1, [ONLY_TOOLS])
    (tmp_path / "log.jsonl").write_bytes(LOG)
    own.write_text(json.dumps({**json.loads(own.read_text()), "version": "1.0 "}))
    with pytest.raises(CannotEvaluate, match="a tokenizer or the way logs are prepared has changed"):
        trace_with_rules(connection, 1, [ONLY_TOOLS])
    own.unlink()
    with pytest.raises(CannotEvaluate, match="no such file or directory"):
        trace_with_rules(connection, 1, [ONLY_TOOLS])
    assert connection.execute("SELECT count(*) FROM traces").fetchone() == (1,)


def test_standard_input_cannot_be_read_again(cli: Cli, options: tuple[str, ...], con: Connect) -> None:
    assert cli("replay", "-", *options, stdin=LOG).code == 0
    with pytest.raises(CannotEvaluate, match="standard input; store it in a file and replay that"):
        trace_with_rules(con(), 1, [ONLY_TOOLS])
