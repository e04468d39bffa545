"""Whole commands on logs in other containers, of several tables, and of a format that only the user knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
from e2e_support import Cli, body, usage
from worked_log import SYSTEM, at

LOGS = Path(__file__).parents[2] / "fixtures" / "logs"
REQUESTS: list[dict[str, Any]] = [
    {"id": "a", "at": at("10:00:00"), "principal": "p", "body": body(SYSTEM), "usage": usage(2000, 1)},
    {"id": "b", "at": at("10:00:10"), "principal": "p", "body": body(SYSTEM), "usage": usage(2000, 1)},
]
HOUSE = '[fields]\nid="n"\nat="t"\nprincipal="who.name"\nbody="sent"\nusage="counted"\n'


def report(cli: Cli, *arguments: object) -> tuple[list[dict[str, Any]], list[str]]:
    found = cli("replay", *arguments, "--format", "json").json()
    rows = [{name: value for name, value in row.items() if name != "run"} for row in found["rows"]]
    return rows, [assumption["code"] for assumption in found["assumptions"]]


def test_every_container_gives_the_same_report(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in REQUESTS))
    (tmp_path / "array.json").write_text(json.dumps(REQUESTS, indent=1))
    (tmp_path / "page.json").write_text(json.dumps({"object": "list", "data": REQUESTS}))
    with duckdb.connect() as con:
        for name in ("log.csv", "log.parquet"):
            columns = "{id: 'VARCHAR', \"at\": 'VARCHAR', principal: 'VARCHAR', body: 'JSON', usage: 'JSON'}"
            con.execute(f"COPY (FROM read_json('{tmp_path}/log.jsonl', columns = {columns})) TO '{tmp_path}/{name}'")
    expected = report(cli, "log.jsonl")
    for name in ("array.json", "page.json", "log.csv", "log.parquet"):
        assert report(cli, name) == expected


def test_a_mapping_gives_the_same_report(cli: Cli, tmp_path: Path) -> None:
    rows = [
        {"n": r["id"], "t": r["at"], "who": {"name": "p"}, "sent": r["body"], "counted": r["usage"]} for r in REQUESTS
    ]
    (tmp_path / "house.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in REQUESTS))
    (tmp_path / "house.toml").write_text(HOUSE)
    assert cli("replay", "house.jsonl").code == 2
    rows_of_log, assumed = report(cli, "log.jsonl")
    assert report(cli, "house.jsonl", "--mapping", "house.toml") == (
        rows_of_log,
        [*assumed[:1], "mapping", *assumed[1:]],
    )
    checked = cli("check", "house.jsonl", "--mapping", "house.toml", "--format", "json").json()
    assert [file["log_format"] for file in checked["files"]] == ["house"]


def test_another_mapping_is_another_trace_and_the_same_one_is_read_again(cli: Cli, tmp_path: Path) -> None:
    rows = [{"n": r["id"], "t": r["at"], "who": {"name": "p", "team": "q"}, "sent": r["body"]} for r in REQUESTS]
    (tmp_path / "house.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    digests = []
    for text in (HOUSE, HOUSE.replace("who.name", "who.team"), HOUSE):
        (tmp_path / "house.toml").write_text(text)
        found = cli("replay", "house.jsonl", "--mapping", "house.toml", "--format", "json").json()
        digests.append(found["runs"][0]["run"])
    assert digests[0] == digests[2] != digests[1]
    (tmp_path / "house.toml").unlink()  # the run knows its mapping; other body rules need the log read again
    again = cli("compare", "--policy", "dwctl-8.63", "--policy", "dwctl-10.13", "--by-rule", "--format", "json")
    assert [row["policy"] for row in again.rows()][-1:] == ["dwctl-10.13"]


def test_a_mistake_in_a_mapping_ends_with_78(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("{}\n")
    (tmp_path / "m.toml").write_text('[fields]\nbody = "b"\nattt = "x"\n')
    found = cli("replay", "log.jsonl", "--mapping", "m.toml")
    assert (found.code, found.out) == (78, "")
    assert found.err.startswith("cachesim: m.toml:3: unknown target attt in [fields], did you mean at?")


def test_the_tables_of_dwctl(cli: Cli) -> None:
    folder = LOGS / "dwctl"
    tables = [folder / name for name in ("http_requests.jsonl", "http_responses.csv.gz", "http_analytics.json")]
    rows, assumed = report(cli, *tables)
    assert (rows[0]["requests"], rows[0]["requests_failed"]) == (4, 1)
    assert rows[0]["recorded_read_tokens"] == 60  # 30 of q-2 and 30 of q-5
    assert "markers_not_stored" in assumed
    assert "unanswered" in report(cli, tables[0])[1]
    alone = cli("replay", tables[2])
    assert (alone.code, alone.out) == (65, "")
    assert "http_analytics rows hold no request bodies" in alone.err
