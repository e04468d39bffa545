from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from cachesim import __version__
from cachesim.cli import lazy, main
from cachesim.cli import report as report_command
from cachesim.cli.progress import DELAY_S, progress
from cachesim.errors import CachesimError, CannotEvaluate, ConfigError, DatabaseBusy, InputError, NothingUsable
from cachesim.store.db import open_database

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("sample_run", ROOT / "tests/report/sample_run.py")
assert SPEC
assert SPEC.loader
sample = sys.modules.setdefault("sample_run", importlib.util.module_from_spec(SPEC))
SPEC.loader.exec_module(sample)
READY = [entry.name for entry in lazy.COMMANDS if (ROOT / f"cachesim/cli/{entry.name}.py").exists()]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("COLUMNS", "120")

    def call(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(args))
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out.decode(), err.decode()

    return call


@pytest.fixture
def db(tmp_path: Path) -> str:
    path = str(tmp_path / "runs.duckdb")
    requests = [
        sample.Req(model="a", prompt=2000, completion=100, split=(1000, 0, 500), principal="p"),
        sample.Req(model="b", prompt=10, outcome="zero", reason="below_floor", at_us=sample.START_US + sample.HOUR_US),
        sample.Req(model="c", prompt=300, outcome="zero", reason="no_markers"),
    ]
    with open_database(path) as con:
        for run_no in (1, 2):
            sample.fill(con, requests, run_no=run_no)
    return path


def test_help_and_version_import_nothing_heavy() -> None:
    code = (
        "import sys\nfrom cachesim.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit as e: code = e.code\n"
        "heavy = {'duckdb', 'polars', 'orjson', 'tokenizers', 'genai_prices', 'numpy'} & set(sys.modules)\n"
        "print(heavy, file=sys.stderr); sys.exit(code or bool(heavy))"
    )
    for option in ("--help", "--version"):
        done = subprocess.run(
            [sys.executable, "-c", code, option], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "cachesim" in done.stdout


def test_the_list_of_commands_is_the_registry(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert all(entry.name in out for entry in lazy.COMMANDS)
    assert "Examples" in out
    assert run("--version")[:2] == (0, f"cachesim {__version__}\n")


@pytest.mark.parametrize("command", [*READY, "runs show", "runs delete"])
def test_every_help_has_examples_that_exist(run: Run, command: str) -> None:
    code, out, _ = run(*command.split(), "--help")
    assert code == 0
    example = [line.strip() for line in out.splitlines() if line.strip().startswith("cachesim ")]
    assert len(example) >= 2, out
    assert "--install-completion" not in out
    assert all(line.split()[1] in [entry.name for entry in lazy.COMMANDS] for line in example)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["reprot"], "Did you mean 'report'"),
        (["report", "--by-modle"], "Did you mean --by-model?"),
        (["runs", "shwo"], "Did you mean 'show'"),
        (["report", "--by", "modle", "--db", "DB"], "did you mean model"),
        (["report", "--sort", "chraged", "--db", "DB"], "did you mean charged"),
        (["report", "--since", "yesterday", "--db", "DB"], "--since 'yesterday'"),
        (["report", "--since", "2026-01-02", "--until", "2026-01-01", "--db", "DB"], "begins after it ends"),
        (["report", "--model", "aa", "--db", "DB"], "--model 'aa': not in this run's log, did you mean a?"),
        (
            ["report", "--principal", "nobody", "--db", "DB"],
            "--principal 'nobody': not in this run's log, which has acme, p",
        ),
        (
            ["compare", "--period", "2026-01-02..2026-01-01", "--period", "2026-01-01..2026-01-02", "--db", "DB"],
            "--period 2026-01-02..2026-01-01: a period that begins after it ends",
        ),
        (
            ["compare", "--period", "2026-01-01..2026-01-01", "--period", "2026-01-01..", "--db", "DB"],
            "ends where it begins",
        ),
        (["compare", "--run", "1", "--run", "2", "--model", "nope", "--db", "DB"], "--model 'nope': not in this run's"),
        (["replay", "log.jsonl", "--since", "2026-01-02", "--until", "2026-01-01"], "begins after it ends"),
        (["report", "--timezone", "Europe/Berln", "--db", "DB"], "Europe/Berlin"),
        (["report", "--by", "request,model", "--db", "DB"], "cannot be combined"),
        (["report", "--run", "9", "--db", "DB"], "cachesim runs"),
        (["report", "--db", "no.duckdb"], "cachesim replay"),
        (["report", "--top", "0"], "'--top'"),
        (["policies", "dwctl-10.3"], "did you mean dwctl-10.13"),
        (["runs", "delete", "1", "--db", "DB"], "--yes"),
        (["conformance"], "FILE"),
    ],
)
def test_mistakes_are_one_line_and_end_with_2(run: Run, db: str, args: list[str], words: str) -> None:
    code, out, err = run(*(db if arg == "DB" else arg for arg in args))
    assert code == 2
    assert out == ""
    assert err.startswith("cachesim: ")
    assert err.count("\n") == 1
    assert words in err


@pytest.mark.parametrize("error", [CachesimError, InputError, CannotEvaluate, NothingUsable, DatabaseBusy, ConfigError])
def test_errors_end_with_their_code(run: Run, monkeypatch: pytest.MonkeyPatch, error: type[CachesimError]) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error("log.jsonl:3: two\nlines \x1b[31m")

    monkeypatch.setattr("cachesim.store.db.open_database", fail)
    code, out, err = run("report")
    assert (code, out, err) == (error.exit_code, "", "cachesim: log.jsonl:3: two lines \\x1b[31m\n")


def test_a_bug_names_its_place_and_never_the_data(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("secret prompt")

    monkeypatch.delenv("CACHESIM_DEBUG", raising=False)
    monkeypatch.setattr("cachesim.store.db.open_database", fail)
    code, _, err = run("report")
    assert code == 70
    assert err.count("\n") == 1
    assert "bug in cachesim: ValueError at cachesim/cli/report.py:" in err
    assert "secret" not in err
    monkeypatch.setenv("CACHESIM_DEBUG", "1")
    assert "secret prompt" in run("report")[2]


def test_ctrl_c_ends_with_130_and_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cachesim.store.db.open_database", fail)
    assert run("report") == (130, "", "cachesim: interrupted\n")


def test_a_reader_that_leaves_early_is_no_failure(db: str) -> None:
    with open_database(db) as con:
        sample.fill(con, [sample.Req(model=f"m{i}") for i in range(20_000)], run_no=3, bounds=False)
    command = [sys.executable, "-m", "cachesim", "report", "--by", "request", "--format", "csv", "--db", db]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("run,policy")
        process.stdout.close()
        assert process.stderr
        assert process.stderr.read() == ""
        assert process.wait() == 0


def test_a_locked_database_ends_with_75(run: Run, db: str) -> None:
    hold = "import sys, duckdb; c = duckdb.connect(sys.argv[1]); print('open', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, db], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        holder.stdout.readline()
        code, _, err = run("report", "--db", db)
        holder.communicate("\n")
    assert code == 75
    assert "wait until it ends" in err


def test_report_json_is_the_same_twice_and_equal_for_equal_runs(run: Run, db: str) -> None:
    args = ["report", "--by", "model", "--format", "json", "--db", db, "--run", "1"]
    first, second = run(*args), run(*args)
    assert first == second
    assert (first[0], first[2]) == (0, "")
    found = json.loads(first[1])
    assert [row["model"] for row in found["rows"]] == ["a", "b", "c"]
    assert found["rows"][0]["charged"] == "1.8"
    assert found["by"] == ["model"]


def test_groups_combine_from_lists_repetitions_and_shortcuts(run: Run, db: str) -> None:
    _, out, _ = run("report", "--by", "model,day", "--by", "tier", "--by-reason", "--format", "csv", "--db", db)
    assert out.startswith("run,policy,tariff,model,day,tier,reason,requests,")


def test_sort_and_top_choose_rows_and_say_what_is_left_out(run: Run, db: str) -> None:
    base = ["report", "--by-model", "--db", db]
    rows = json.loads(run(*base, "--sort", "prompt_tokens:asc", "--top", "2", "--format", "json")[1])["rows"]
    assert [row["model"] for row in rows] == ["b", "c"]
    rows = json.loads(run(*base, "--top", "1", "--format", "json")[1])["rows"]
    assert [row["model"] for row in rows] == ["a"]
    rows = json.loads(run(*base, "--sort", "model:desc", "--format", "json")[1])["rows"]
    assert [row["model"] for row in rows] == ["c", "b", "a"]
    code, out, err = run(*base, "--top", "1")
    assert code == 0
    assert "2 more rows (the row `all` includes them)" in err
    assert "2,310" in out  # 2000 + 10 + 300: the total is of everything
    assert run(*base, "--top", "1", "--quiet")[2] == ""


def test_nulls_come_last_in_both_directions(run: Run, db: str) -> None:
    base = ["report", "--by-model", "--db", db, "--format", "json", "--sort"]
    for order, models in (("cacheable_hit_rate:asc", "abc"), ("cacheable_hit_rate", "abc")):
        rows = json.loads(run(*base, order)[1])["rows"]
        assert "".join(row["model"] for row in rows) == models


def test_time_filters_follow_the_time_zone(run: Run, db: str) -> None:
    args = ["report", "--db", db, "--format", "json", "--since", "2026-01-01T01:30:00", "--timezone", "Europe/Berlin"]
    (row,) = json.loads(run(*args)[1])["rows"]  # 00:30 UTC: only the request of 01:00 UTC is left
    assert row["prompt_tokens"] == 10


@pytest.mark.parametrize("form", ["json", "csv", "md", "parquet", "table"])
def test_output_writes_a_whole_file_or_none(run: Run, db: str, tmp_path: Path, form: str) -> None:
    target = tmp_path / f"out.{form}"
    code, out, _ = run("report", "--by-model", "--db", db, "--format", form, "--output", str(target))
    assert (code, out) == (0, "")
    assert target.stat().st_size > 100
    code, _, err = run("report", "--db", db, "--format", form, "--output", str(tmp_path / "no" / "x"))
    assert code == 2
    assert "--output" in err
    assert not list(tmp_path.glob("*.part"))


def test_many_rows_of_a_table_are_limited_with_a_word(run: Run, db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_command, "TABLE_ROWS", 2)
    _, out, err = run("report", "--by-request", "--db", db)
    assert "r1" in out
    assert "r2" not in out
    assert "1 more rows" in err


def test_explain_columns_defines_what_is_shown(run: Run, db: str) -> None:
    _, out, _ = run("report", "--explain-columns", "--db", db)
    assert "read tokens / (read + creation tokens)" in out


def test_runs_are_listed_shown_and_deleted(run: Run, db: str) -> None:
    code, out, _ = run("runs", "--db", db)
    assert code == 0
    assert out.count("log.jsonl") == 2
    listed = json.loads(run("runs", "--db", db, "--format", "json")[1])
    assert [row["run"][:2] for row in listed["rows"]] == ["01", "02"]
    assert "2026-02-03" not in json.dumps(listed)
    _, out, _ = run("runs", "--db", db, "show", "01ab")
    assert "tokenizer.json v1" in out
    shown = json.loads(run("runs", "show", "2", "--db", db, "--format", "json")[1])
    assert shown["runs"][0]["variants"][0]["rules"] == {"walk_back": 20}
    code, _, err = run("runs", "delete", "1", "02ab", "--yes", "--db", db)
    assert (code, err.count("deleted with its trace")) == (0, 2)
    with duckdb.connect(db) as con:
        assert con.execute("SELECT count(*) FROM requests").fetchone() == (0,)
    assert "holds no run" in run("runs", "--db", db)[2]


def test_policies_shows_presets_and_their_differences(run: Run) -> None:
    _, out, _ = run("policies", "--differences")
    assert "hash_tools" in out
    assert "walk_back" not in out
    rows = json.loads(run("policies", "dwctl-8.63", "--format", "json")[1])["rows"]
    values = {row["rule"]: row["value"] for row in rows}
    assert (values["walk_back"], values["billing_rule"], values["min_prefix_tokens"]) == ("20", '"void"', "null")
    assert {row["policy"] for row in rows} == {"dwctl-8.63"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("quiet", "tty", "seconds", "shown"),
    [(False, True, DELAY_S, True), (False, True, DELAY_S - 1, False), (True, True, 9, False), (False, False, 9, False)],
)
def test_progress_appears_on_a_terminal_after_two_seconds(
    monkeypatch: pytest.MonkeyPatch, quiet: bool, tty: bool, seconds: float, shown: bool
) -> None:
    stream = Terminal() if tty else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    ticks = iter([0.0, 0.1, seconds])
    with progress(100, "reading", quiet, clock=lambda: next(ticks)) as advance:
        advance(10)
        assert stream.getvalue() == ""
        advance(40)
    assert ("reading" in stream.getvalue()) == shown
