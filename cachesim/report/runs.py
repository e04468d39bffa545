"""The runs of a database: finding one by number or digest, and what each one was made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from cachesim.errors import UsageError

if TYPE_CHECKING:
    import duckdb

MIN_PREFIX: Final = 4
# calibration: null for a tokenizer whose counts stay as they are
_TOKENIZERS: Final = """
SELECT source, version, exact, CASE WHEN factor_e4 IS NOT NULL THEN {
  model: model, factor: format('{:d}.{:04d}', factor_e4 // 10000, factor_e4 % 10000), origin: origin,
  fitted_requests: fitted_requests, checked_requests: checked_requests, residual_median: residual_median,
  residual_p95: residual_p95} END AS calibration
FROM trace_tokenizers WHERE trace_no = ? ORDER BY tokenizer_no
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One replay. `digest` names it for machines, `run_no` and `created_at` (UTC text) only for people.

    assumptions: [{code, text}]; problems: counts of what was wrong with the inputs; the lists hold one dict per row of
    trace_inputs, trace_tokenizers and variants.
    """

    run_no: int
    digest: str
    trace_no: int
    trace_digest: str
    requests: int
    created_at: str
    cachesim_version: str
    options: Any
    assumptions: list[dict[str, str]]
    problems: dict[str, Any]
    inputs: list[dict[str, Any]]
    tokenizers: list[dict[str, Any]]
    variants: list[dict[str, Any]]

    @property
    def made_by(self) -> str:
        """The command that made it: replay, tune (a sweep), or another one that needed it for its answer."""
        return "tune" if "sweep" in self.options else str(self.options.get("made_for", "replay"))

    def entry(self, *, full: bool = False) -> dict[str, Any]:
        """The run in JSON output: no number, no wall clock; `full` adds options and every rule of every variant.

        Without `full`, variants of a sweep that differ in rules or lifetimes alone are one.
        """
        variants = self.variants
        if not full:
            names = [{k: v for k, v in variant.items() if k not in ("rules", "ttl")} for variant in self.variants]
            variants = list({tuple(variant.values()): variant for variant in reversed(names)}.values())[::-1]
        entry = {
            "run": self.digest,
            "cachesim_version": self.cachesim_version,
            "trace": self.trace_digest,
            "requests": self.requests,
            "inputs": self.inputs,
            "tokenizers": self.tokenizers,
            "variants": variants,
        }
        return {**entry, "options": self.options} if full else entry


def list_runs(con: duckdb.DuckDBPyConnection) -> list[Run]:
    """Every run, oldest first."""
    con.execute("SELECT run_no FROM runs ORDER BY run_no")
    return [show_run(con, run_no) for (run_no,) in con.fetchall()]


def latest_run(con: duckdb.DuckDBPyConnection) -> int:
    """The number of the newest run; raises UsageError if there is none."""
    row = con.execute("SELECT max(run_no) FROM runs").fetchone()
    if row is None or row[0] is None:
        raise UsageError("the database holds no run yet; make one with `cachesim replay LOG…`")
    return int(row[0])


def find_run(con: duckdb.DuckDBPyConnection, name: str) -> int:
    """The number of the run called `name`: a number, a prefix of its digest (newest of equal ones), or `latest`.

    Raises UsageError if nothing, or more than one digest, matches.
    """
    if name == "latest":
        return latest_run(con)
    if name.isascii() and name.isdigit() and len(name) < 10:
        row = con.execute("SELECT run_no FROM runs WHERE run_no = ?", [int(name)]).fetchone()
        if row:
            return int(row[0])
    if len(name) < MIN_PREFIX:
        raise UsageError(f"run {name!r}: not in the database; `cachesim runs` lists the runs")
    con.execute(
        "SELECT digest, max(run_no) FROM runs WHERE starts_with(digest, ?) GROUP BY digest ORDER BY 2", [name.lower()]
    )
    found = con.fetchall()
    if not found:
        raise UsageError(f"run {name!r}: not in the database; `cachesim runs` lists the runs")
    if len(found) > 1:
        raise UsageError(f"run {name!r}: {len(found)} runs begin like this; give more of the digest")
    return int(found[0][1])


def find_replay(con: duckdb.DuckDBPyConnection, name: str) -> int:
    """Like `find_run`, for what needs requests and not only sums: `latest` is the newest that `replay` made.

    What `compare` replays to answer a question is not the basis of the next one. Raises UsageError for a sweep.
    """
    if name == "latest":
        row = con.execute(
            "SELECT max(run_no) FROM runs WHERE run_no NOT IN (SELECT run_no FROM swept)"
            " AND json_extract_string(options, '$.made_for') IS NULL"
        ).fetchone()
        return latest_run(con) if row is None or row[0] is None else int(row[0])
    run_no = find_run(con, name)
    if con.execute("SELECT 1 FROM swept WHERE run_no = ? LIMIT 1", [run_no]).fetchone():
        raise UsageError(f"run {name!r}: a sweep, which keeps sums and no requests; name a replay of `cachesim runs`")
    return run_no


def show_run(con: duckdb.DuckDBPyConnection, run_no: int) -> Run:
    """Everything known of one run; raises UsageError if there is no such run."""
    row = con.execute(
        "SELECT r.run_no, r.digest, r.trace_no, t.digest, t.requests, strftime(r.created_at, '%Y-%m-%d %H:%M:%S'),"
        " r.cachesim_version, r.options, r.assumptions, r.problems FROM runs r JOIN traces t USING (trace_no)"
        " WHERE run_no = ?",
        [run_no],
    ).fetchone()
    if row is None:
        raise UsageError(f"run {run_no}: not in the database; `cachesim runs` lists the runs")
    inputs = _dicts(
        con,
        "SELECT name, bytes, sha256, log_format, records, bad_lines FROM trace_inputs WHERE trace_no = ?"
        " ORDER BY file_no",
        row[2],
    )
    tokenizers = _dicts(con, _TOKENIZERS, row[2])
    variants = _dicts(
        con,
        "SELECT kind, policy, tariff, markers, rules, ttl FROM variants WHERE run_no = ? ORDER BY variant_no",
        run_no,
    )
    for variant in variants:
        variant["rules"] = orjson.loads(variant["rules"])
        if variant["ttl"] is None:
            del variant["ttl"]
    options, assumptions, problems = (orjson.loads(text) for text in row[7:])
    number, digest, trace_no, trace_digest, requests, created_at, version = row[:7]
    return Run(
        run_no=number,
        digest=digest,
        trace_no=trace_no,
        trace_digest=trace_digest,
        requests=requests,
        created_at=created_at,
        cachesim_version=version,
        options=options,
        assumptions=assumptions,
        problems=problems,
        inputs=inputs,
        tokenizers=tokenizers,
        variants=variants,
    )


def _dicts(con: duckdb.DuckDBPyConnection, sql: str, key: int) -> list[dict[str, Any]]:
    con.execute(sql, [key])
    names = [column[0] for column in con.description or []]
    return [dict(zip(names, row, strict=True)) for row in con.fetchall()]
