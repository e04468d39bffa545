"""Promises about figures that only a whole replay can break: bounds, the recorded split, explicit success."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from e2e_support import Cli, body, lines, text, usage, words

Options = tuple[str, ...]


@pytest.fixture
def options(tokenizer: Path) -> Options:
    return ("replay", "log.jsonl", "--tokenizer", str(tokenizer), "--set", "min_prefix_tokens=1", "--format", "json")


def request(second: int, **fields: Any) -> dict[str, Any]:
    return {
        "at": f"2026-03-01T00:00:{second:02}Z",
        "principal": "p",
        "body": body(("user", text(words("u", 8), "5m"))),
        "usage": usage(20, 1),
        **fields,
    }


def test_ideal_bounds_every_policy_by_its_own_blocks(cli: Cli, options: Options, tmp_path: Path) -> None:
    """The tools change with each request: 8.63 does not see them and reads 8 of 40 tokens, 10.13 can read nothing."""
    changing = [{**request(0)["body"], "tools": [{"name": f"tool{i}"}]} for i in range(2)]
    (tmp_path / "log.jsonl").write_bytes(lines([request(i, body=value) for i, value in enumerate(changing)]))
    rows = cli(*options, "--policy", "dwctl-10.13", "--policy", "dwctl-8.63").rows()
    assert [(row["policy"].replace(" [min_prefix_tokens=1]", ""), row["token_hit_rate"]) for row in rows] == [
        ("dwctl-10.13", 0),
        ("dwctl-8.63", 8 / 40),
        ("off", 0),
        ("ideal", 0),
        ("ideal (dwctl-8.63)", 8 / 40),
    ]


def test_explicit_success_commits_whatever_the_status_and_the_rule(cli: Cli, options: Options, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(lines([request(0, status=500, success=True), request(1)]))
    for visible_at in ("completion", "response_start", "arrival"):
        row, *_ = cli(*options, "--set", f'visible_at="{visible_at}"').rows()
        assert row["read_tokens"] == 8


def test_the_whole_recorded_split_is_reported(cli: Cli, options: Options, tmp_path: Path) -> None:
    tiers = {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4}
    recorded = {"input_tokens": 5, "cache_read_input_tokens": 6, "cache_creation": tiers}
    (tmp_path / "log.jsonl").write_bytes(lines([request(0, usage=recorded), request(1)]))
    names = ["recorded_read_tokens", *(f"recorded_creation_{tier}_tokens" for tier in ("5m", "1h", "24h"))]
    total, *_ = cli(*options).rows()
    assert [total[name] for name in names] == [6, 3, 4, None]
    first, second = cli("report", "--by", "request", "--format", "json").rows()
    assert [first[name] for name in names] == [6, 3, 4, None]
    assert [second[name] for name in names] == [None] * 4


@pytest.mark.parametrize(("strategy", "created"), [("tools", 1), ("system", 4), ("system+last-user", 12)])
def test_strategies_put_markers_where_they_say(
    cli: Cli, options: Options, tmp_path: Path, strategy: str, created: int
) -> None:
    """A tool of one token, a system message of three, a user message of eight, a closing assistant message."""
    value = body(("system", "s1 s2 s3"), ("user", words("u", 8)), ("assistant", "closing words"))
    (tmp_path / "log.jsonl").write_bytes(lines([request(0, body={**value, "tools": [{"name": "tool"}]})]))
    row, *_ = cli(*options, "--markers", strategy).rows()
    assert row["creation_5m_tokens"] == created


def test_a_window_without_records_is_named_as_the_reason(cli: Cli, options: Options, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(lines([request(0), request(1)]))
    result = cli(*options, "--since", "2027-01-01")
    assert result.code == 65
    assert "all 2 records arrived outside --since and --until" in result.err


def test_unknown_prompt_tokens_are_no_zeros(cli: Cli, options: Options, tmp_path: Path) -> None:
    """No usage, and an API that is not read: the request is counted, but in no token sum, and it has no price."""
    unknown = {**request(1, uri="/v1/responses", success=True), "usage": None}
    (tmp_path / "log.jsonl").write_bytes(lines([request(0), unknown]))
    row, *_ = cli(*options).rows()
    assert (row["requests"], row["prompt_tokens"], row["prompt_unknown_requests"]) == (2, 20, 1)
    assert (row["unpriced"], row["charged"]) == (2, None)  # the model of these tests has no price at all
    _, second = cli("report", "--by", "request", "--format", "json").rows()
    assert (second["prompt_tokens"], second["list"], second["charged"]) == (None, None, None)


def test_the_local_count_of_a_prompt_does_not_depend_on_the_policies_asked(
    cli: Cli, options: Options, tmp_path: Path
) -> None:
    """Without usage the whole prompt is counted, its tools too, as the newest version sees it: 1 + 8 tokens."""
    value = {**request(0)["body"], "tools": [{"name": "tool"}]}
    (tmp_path / "log.jsonl").write_bytes(lines([request(0, body=value, usage=None)]))
    for policies in (["dwctl-10.13"], ["dwctl-8.63"], ["dwctl-8.63", "dwctl-10.13"]):
        rows = cli(*options, *(part for name in policies for part in ("--policy", name))).rows()
        assert {row["prompt_tokens"] for row in rows} == {9}


def test_bounds_count_the_requests_their_policy_serves(cli: Cli, options: Options, tmp_path: Path) -> None:
    """The third request is rejected: 8 of the other two's 40 tokens can be read, by the policy and at best."""
    bad = request(2, body=body(("user", text(words("u", 8), "9h"))), usage=usage(1000, 1))
    (tmp_path / "log.jsonl").write_bytes(lines([request(0), request(1), bad]))
    rows = {row["policy"].partition(" ")[0]: row for row in cli(*options).rows()}
    assert {name: (row["requests"], row["requests_rejected"]) for name, row in rows.items()} == {
        "dwctl-10.13": (2, 1),
        "off": (2, 1),
        "ideal": (2, 1),
    }
    assert rows["dwctl-10.13"]["token_hit_rate"] == rows["ideal"]["token_hit_rate"] == 8 / 40
    assert rows["ideal"]["cacheable_hit_rate"] is None


def test_messages_that_are_no_array_are_refused_by_the_ingress(cli: Cli, options: Options, tmp_path: Path) -> None:
    value = {"model": "m", "max_tokens": 5, "messages": "hi"}
    (tmp_path / "log.jsonl").write_bytes(lines([request(0, uri="/v1/messages", body=value)]))
    row, *_ = cli(*options).rows()
    assert (row["requests"], row["requests_rejected"]) == (0, 1)


def test_identical_records_without_times_count_once(cli: Cli, options: Options, tmp_path: Path) -> None:
    one = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": request(0)["body"]}
    (tmp_path / "log.jsonl").write_bytes(lines([one, one]))
    result = cli(*options, "--start", "2026-03-01T00:00:00Z", "--interval", "1s")
    assert result.json()["problems"]["duplicates"] == 1
    assert result.rows()[0]["requests"] == 1


def test_usage_before_the_window_still_decides_what_a_success_is(cli: Cli, options: Options, tmp_path: Path) -> None:
    """The log carries usage, so a request without it has failed, also where --since leaves out the one that has it."""
    (tmp_path / "log.jsonl").write_bytes(lines([request(0), request(10, usage=None)]))
    row, *_ = cli(*options, "--since", "2026-03-01T00:00:05Z").rows()
    assert (row["requests"], row["requests_failed"]) == (0, 1)


def test_a_recorded_creation_without_a_lifetime_is_an_assumption(cli: Cli, options: Options, tmp_path: Path) -> None:
    recorded = {"input_tokens": 5, "cache_creation_input_tokens": 3}
    (tmp_path / "log.jsonl").write_bytes(lines([request(0, usage=recorded)]))
    codes = [assumption["code"] for assumption in cli(*options).json()["assumptions"]]
    assert "recorded_writes_assumed_5m" in codes


def test_a_tokenizer_that_is_not_there_is_a_line_of_the_configuration(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(lines([{"at": 1772355605, "principal": "p", "body": body(("user", "hi"))}]))
    (tmp_path / "cachesim.toml").write_text('# mine\n[models."m"]\ntokenizer = "gone/tokenizer.json"\n')
    done = cli("replay", "log.jsonl")
    assert (done.code, done.out) == (78, "")
    assert done.err.startswith("cachesim: cachesim.toml:3: tokenizer gone/tokenizer.json: no such file or directory;")
    assert cli("replay", "log.jsonl", "--tokenizer", "m=gone.json").code == 2  # an option is no configuration


def test_what_is_counted_for_want_of_a_report_is_named(cli: Cli, options: Options, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(lines([request(0), request(1, usage=None, success=True)]))
    texts = [assumption["text"] for assumption in cli(*options).json()["assumptions"]]
    assert "prompt tokens of 1 of 2 successful requests: not reported, counted locally" in texts
    (tmp_path / "log.jsonl").write_bytes(lines([request(1, usage=None)]))
    texts = [assumption["text"] for assumption in cli(*options).json()["assumptions"]]
    assert "prompt tokens of all successful requests: not reported, counted locally" in texts


def test_answers_without_the_usage_that_others_report_are_named(cli: Cli, options: Options, tmp_path: Path) -> None:
    """As upstream bills: where usage is reported at all, a 2xx answer without it is a stream that broke off."""
    records = [request(0), request(1, usage=None), request(2, usage=None, success=True), request(3, status=500)]
    (tmp_path / "log.jsonl").write_bytes(lines(records))
    made = cli(*options).json()
    assert made["problems"]["failed_without_usage"] == 1
    assert [row["requests_failed"] for row in made["rows"] if row["policy"].startswith("dwctl")] == [2]
    assert "1 answered 2xx without a usage that others report, taken as failed" in cli("check", "log.jsonl").out


def test_batches_of_openai_cost_what_the_ledger_asks_of_batches(cli: Cli, options: Options, tmp_path: Path) -> None:
    asked = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": request(0)["body"]}
    said = {"custom_id": "1", "response": {"status_code": 200, "body": {"usage": usage(10, 1)}}}
    (tmp_path / "log.jsonl").write_bytes(lines([asked]))
    (tmp_path / "output.jsonl").write_bytes(lines([said]))
    rows = [("realtime", "", 3, 15), ("batch", "24h", 1, 5)]
    (tmp_path / "prices.csv").write_text(
        "alias,input_price_per_token,output_price_per_token,api_key_purpose,completion_window,valid_from,valid_until\n"
        + "".join(f"m,{price},{out},{purpose},{window},2026-01-01T00:00:00Z,\n" for purpose, window, price, out in rows)
    )
    clock = ("--start", "2026-03-01T00:00:00Z", "--interval", "1s")
    made = cli(*options, "output.jsonl", "--tariff", "prices.csv", *clock).json()
    assert made["rows"][0]["list"] == "15"  # 10 × 1 + 1 × 5
    assert "openai_batch" in [assumption["code"] for assumption in made["assumptions"]]


def test_a_policy_of_the_configuration_is_named_with_its_values(cli: Cli, options: Options, tmp_path: Path) -> None:
    """Two runs that differ in a value must not have one name."""
    (tmp_path / "log.jsonl").write_bytes(lines([request(0)]))
    (tmp_path / "cachesim.toml").write_text('[policy]\nwalk_back = 1\nwindow = "fixed"\nenabled_ttls = ["5m"]\n')
    named = cli(*options).rows()[0]["policy"]
    assert named == 'dwctl-10.13 [walk_back=1, window=fixed, enabled_ttls=["5m"], min_prefix_tokens=1]'
    assert cli(*options, "--set", "walk_back=3").rows()[0]["policy"] == named.replace("walk_back=1", "walk_back=3")


def test_all_of_a_mapping_is_among_the_assumptions(cli: Cli, options: Options, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(lines([{"t": 1772355600, "b": request(0)["body"]}]))
    tables = {"fields": 'at = "t"\nbody = "b"', "constants": 'purpose = "batch"', "units": 'at = "s"'}
    (tmp_path / "map.toml").write_text("".join(f"[{name}]\n{rows}\n" for name, rows in tables.items()))
    made = cli(*options, "--mapping", "map.toml").json()
    [said] = [assumption["text"] for assumption in made["assumptions"] if assumption["code"] == "mapping"]
    assert said == "rows: read as the mapping map says (at = t, body = b, purpose is batch, at in s)"


def test_nothing_is_suggested_about_a_run_that_is_gone(cli: Cli, options: Options, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(lines([request(0)]))
    assert "cachesim report" in cli(*options[:-2]).out
    assert "cachesim report" not in cli(*options[:-2], "--dry-run").out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_no_bug(cli: Cli) -> None:
    done = cli("policies", "--output", "/dev/full", "--format", "csv")
    assert (done.code, done.err.startswith("cachesim: no room is left for the answer")) == (2, True)


def test_a_key_is_no_name_wherever_it_stands(cli: Cli, options: Options, tmp_path: Path) -> None:
    """Of a tag that is null the request knows nothing, and of a key nobody does."""
    key = "sk-live-0123456789abcdef"
    log = [request(0, principal=key, session=key, tags={"app": key, "none": None}), request(1, session="s")]
    (tmp_path / "log.jsonl").write_bytes(lines(log))
    assert cli(*options).json()["problems"]["bad_lines"] == 0
    for by in ("principal", "session", "tag:app", "tag:none"):
        answer = cli("report", "--by", by, "--format", "json")
        assert answer.code == 0
        assert key not in answer.out
    names = {row["principal"] for row in cli("report", "--by", "principal", "--format", "json").rows()}
    assert "p" in names
    assert any(name.startswith("sha256:") for name in names)
    assert key.encode() not in (tmp_path / "cachesim.duckdb").read_bytes()
