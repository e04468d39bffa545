"""The plan and the trace of a stored run brought back, to be replayed under other rules, prices or markers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cachesim.assumed_prices import assumed_base_row
from cachesim.assumptions import SHORT_DIGEST, Assumption, is_continued
from cachesim.config import Config, ModelConfig
from cachesim.core.gates import MarkerStrategy, marker_strategy
from cachesim.core.ledger import BaseRow, CacheRow, TariffSet
from cachesim.core.policy import BodyRules, Policy
from cachesim.errors import CannotEvaluate, InputError
from cachesim.pipeline import Preparation, Progress, missing_rules, prepare, same_preparation
from cachesim.run import RunPlan, same_variant
from cachesim.store.trace_reader import load_trace, trace_inputs, trace_rules
from cachesim.store.traces import PreparedTrace, TraceInput
from cachesim.trace.open import STDIN_NAME, Source, utf8_name
from cachesim.trace.reader import ReadOptions
from cachesim.trace.stored import digest_file

if TYPE_CHECKING:
    import duckdb

_POLICY_RULES: Final = frozenset(f.name for f in fields(Policy)) - {"name"}
_REPLAY_AGAIN: Final = "replay the log again"


def plan_options(
    plan: RunPlan, files: Sequence[str], made_for: str | None = None, continues: str | None = None
) -> dict[str, Any]:
    """What `runs.options` keeps of a run, as JSON: its plan for people, and the tariffs for `stored_plan`.

    files: the log arguments as typed; made_for: the command that made the run to answer a question, None for `replay`;
    continues: the digest of the run whose index it started from.
    """
    return {
        **({} if made_for is None else {"made_for": made_for}),
        **({} if continues is None else {"continues": continues}),
        "plan": plan.describe(),
        "files": [utf8_name(file) for file in files],
        "tariffs": [_tariff_options(tariff) for tariff in plan.tariffs],
    }


def _tariff_options(tariff: TariffSet) -> dict[str, Any]:
    """Assumed prices are left out: they are asked for again."""
    return {
        "name": tariff.name,
        "by_default": tariff.by_default,
        "cache": [_plain(row) for row in tariff.all_cache_rows],
        "base": [_plain(row) for row in tariff.all_base_rows if not row.assumed],
        "warnings": list(tariff.warnings),
    }


def _plain(row: CacheRow | BaseRow) -> dict[str, Any]:
    """A ledger row as JSON, its decimals as exact text."""
    return {name: str(value) if isinstance(value, Decimal) else value for name, value in asdict(row).items()}


# -- the plan


def stored_plan(con: duckdb.DuckDBPyConnection, run_no: int) -> RunPlan:
    """The policies with all their rules, the tariff sets and the markers that a run was made with.

    A run that is a sweep gives the plan of its variant 0, the baseline, alone. Models without a base tariff get assumed
    prices again. Raises CannotEvaluate for a run of an older cachesim that did not keep what is needed.
    """
    run = _Stored(con, run_no)
    variants = run.variants()
    policies = list(dict.fromkeys(_policy(run, name, rules) for name, _, _, rules in variants))
    known = {stored["name"]: stored for stored in run.options.get("tariffs", ())}
    names = list(dict.fromkeys(tariff for _, tariff, _, _ in variants))
    missing = [name for name in names if name not in known]
    if missing:
        raise run.too_old(f"did not keep the tariff {missing[0]}")
    return RunPlan(policies, [_tariff(known[name]) for name in names], _strategy(variants[0][2]))


def continued_from(
    con: duckdb.DuckDBPyConnection, run_no: int, policy: Policy, strategy: MarkerStrategy, tariff: TariffSet
) -> tuple[int, int] | None:
    """(run_no, variant_no) whose index a variant of a run started from, None where it started empty.

    Raises CannotEvaluate where that run is not in the database any more, or is not known: made by an older cachesim.
    """
    run = _Stored(con, run_no)
    digest = run.options.get("continues")
    if digest is None:
        if is_continued(run.assumptions):
            raise run.too_old("did not keep which run it continued")
        return None
    row = con.execute("SELECT run_no FROM runs WHERE digest = ?", [digest]).fetchone()
    if row is None:
        raise CannotEvaluate(
            f"run {run_no}: the run it continued, {digest[:SHORT_DIGEST]}, is not in the database any more; replay both"
            " logs again"
        )
    return row[0], same_variant(con, row[0], policy, strategy, tariff)


class _Stored:
    """What the database says of one run."""

    def __init__(self, con: duckdb.DuckDBPyConnection, run_no: int) -> None:
        row = con.execute(
            "SELECT digest, trace_no, cachesim_version, options, assumptions FROM runs WHERE run_no = ?", [run_no]
        ).fetchone()
        if row is None:
            raise CannotEvaluate(f"run {run_no}: not in the database; `cachesim runs` lists the runs")
        self.con = con
        self.run_no = run_no
        self.digest: str = row[0]
        self.trace_no: int = row[1]
        self.version: str = row[2]
        self.options: dict[str, Any] = json.loads(row[3])
        self.assumptions: list[Assumption] = json.loads(row[4])

    def variants(self) -> list[tuple[str, str, str, str]]:
        """(policy, tariff, markers, rules) of its variants without bounds; of a sweep only the first."""
        is_sweep = self.con.execute("SELECT 1 FROM swept WHERE run_no = ? LIMIT 1", [self.run_no]).fetchone()
        limit = "LIMIT 1" if is_sweep else ""
        found = self.con.execute(
            "SELECT policy, tariff, markers, rules FROM variants WHERE run_no = ? AND kind = 'policy' "
            f"ORDER BY variant_no {limit}",
            [self.run_no],
        ).fetchall()
        if not found:
            raise CannotEvaluate(f"run {self.run_no}: holds no policy; {_REPLAY_AGAIN}")
        return found

    def too_old(self, what: str) -> CannotEvaluate:
        return CannotEvaluate(f"run {self.run_no}: cachesim {self.version} {what}; {_REPLAY_AGAIN}, then use that run")


def _policy(run: _Stored, name: str, rules_json: str) -> Policy:
    rules: dict[str, Any] = {rule: tuple(v) if isinstance(v, list) else v for rule, v in json.loads(rules_json).items()}
    if rules.keys() != _POLICY_RULES:
        differing = ", ".join(sorted(rules.keys() ^ _POLICY_RULES))
        raise run.too_old(f"knew other rules of {name} than this version ({differing})")
    return Policy(name=name, **rules)


def _strategy(text: str) -> MarkerStrategy:
    """The strategy that `str` gave `text`."""
    name, _, tier = text.partition(":")
    return marker_strategy(name, tier or "5m")


def _tariff(stored: dict[str, Any]) -> TariffSet:
    cache = [
        CacheRow(**{**row, **{key: Decimal(row[key]) for key in ("write_5m", "write_1h", "write_24h", "read")}})
        for row in stored["cache"]
    ]
    base = [
        BaseRow(**{**row, **{key: Decimal(row[key]) for key in ("input_price", "output_price")}})
        for row in stored["base"]
    ]
    default = cache[0] if stored["by_default"] and cache else None
    return TariffSet(
        stored["name"], [] if stored["by_default"] else cache, base, default, assumed_base_row, stored["warnings"]
    )


# -- the trace


def trace_with_rules(
    con: duckdb.DuckDBPyConnection, run_no: int, rules: Sequence[BodyRules], progress: Progress | None = None
) -> PreparedTrace:
    """The trace of a run, prepared for all of `rules`: the stored one, or its log files read again in one pass.

    A trace read again holds the same requests under the same numbers. `con` must be writable and outside a transaction
    then; progress is told the bytes read. Raises CannotEvaluate where a file is missing or is not what was read, came
    from standard input, is counted by another tokenizer now, or was read by a cachesim that did not keep how.
    """
    run = _Stored(con, run_no)
    known = trace_rules(con, run.trace_no)
    wanted = missing_rules(known, rules)
    if not wanted:
        return load_trace(con, run.trace_no)
    row = con.execute("SELECT digest, facts FROM traces WHERE trace_no = ?", [run.trace_no]).fetchone()
    assert row is not None
    digest, reading = row[0], json.loads(row[1]).get("reading")
    if reading is None:
        raise run.too_old("did not keep how it read the log, which these rules need read again")
    inputs = trace_inputs(con, run.trace_no)
    sources = [
        _source(number, found, path) for number, (found, path) in enumerate(zip(inputs, reading["paths"], strict=True))
    ]
    models = {pattern: ModelConfig(*tokenizer) for pattern, tokenizer in reading["models"].items()}
    config = Config(None, {}, models, TariffSet("", (), ()), {}, False, [], ())
    job = Preparation(sources, ReadOptions(**reading["options"]), config, known)
    job.calibrated, job.inherited = reading.get("calibrated", True), reading.get("inherited", {})
    _check_tokenizers(run, job, digest)
    job.rules = [*known, *wanted]
    return prepare(con, job, progress)


def _source(number: int, read: TraceInput, path: str | None) -> Source:
    """The file as it was read then: under its name from here, or where it was."""
    again = f"{read.name}: these rules need the log read again, and"
    if path is None:
        what = "standard input" if read.name == STDIN_NAME else "a pipe"
        raise CannotEvaluate(f"{again} it came from {what}; store it in a file and replay that")
    there = [place for name in dict.fromkeys((read.name, path)) if (place := Path(name)).is_file()]
    for place in there:
        if _digest(place) == (read.bytes, read.sha256):
            source = Source(number, read.name, place)
            source.size, source.sha256 = read.bytes, read.sha256
            return source
    was = f"{read.bytes:,} bytes, SHA-256 {read.sha256[:12]}…"
    if there:
        raise CannotEvaluate(
            f"{again} the file has changed since the run was made (it was {was}); put the old one back, "
            "or replay the new one"
        )
    raise CannotEvaluate(f"{again} the file is gone ({was}); put it back, or replay a copy with these rules")


def _digest(path: Path) -> tuple[int, str]:
    try:
        return digest_file(path)
    except InputError as error:
        raise CannotEvaluate(f"{error}; these rules need the log read again") from error


def _check_tokenizers(run: _Stored, job: Preparation, digest: str) -> None:
    """Raises CannotEvaluate if reading the same again would give another trace."""
    try:
        same = same_preparation(job, digest)
    except InputError as error:
        raise CannotEvaluate(f"{error}; run {run.run_no} was counted with it, and these rules need it again") from error
    if not same:
        raise CannotEvaluate(
            f"run {run.run_no}: a tokenizer or the way logs are prepared has changed since (made by cachesim "
            f"{run.version}); {_REPLAY_AGAIN}, then use that run"
        )
