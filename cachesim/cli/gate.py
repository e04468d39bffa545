"""`cachesim gate`: limits on a run, alone or against a baseline, for continuous integration."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cachesim.cli.lazy import examples
from cachesim.cli.output import Output, emit, screen
from cachesim.errors import CannotEvaluate, UsageError
from cachesim.report.formats import Format, Report
from cachesim.store.db import DEFAULT_DATABASE

if TYPE_CHECKING:
    import duckdb

    from cachesim.report.compare import Side
    from cachesim.report.gate import Check

app = typer.Typer()
_LIMITS = "Limits (a sign: from the baseline on; none: as it stands)"


def _limit(name: str, metavar: str, text: str) -> Any:
    return typer.Option(name, metavar=metavar, help=text, rich_help_panel=_LIMITS)


Text = str | None
Database = Annotated[str, typer.Option("--db", metavar="FILE", help="The run database; it is only read.")]
Run = Annotated[str, typer.Option("--run", metavar="RUN", help="The run to check: number, digest or latest.")]
Baseline = Annotated[Text, typer.Option("--baseline", metavar="RUN", help="The run it is compared with.")]
Policy = Annotated[Text, typer.Option("--policy", metavar="NAME", help="Of the run (default: its first).")]
Tariff = Annotated[Text, typer.Option("--tariff", metavar="NAME", help="Of the run (default: its first).")]
BasePolicy = Annotated[
    Text, typer.Option("--baseline-policy", metavar="NAME", help="Of the baseline, if another than --policy.")
]
MaxCost = Annotated[Text, _limit("--max-cost", "LIMIT", "What is charged at most: +2%, -1.5%, +0.25 or 0.25.")]
MinToken = Annotated[Text, _limit("--min-token-hit-rate", "LIMIT", "40%, or -1.5%: percentage points.")]
MinCacheable = Annotated[Text, _limit("--min-cacheable-hit-rate", "LIMIT", "The same of read / (read + creation).")]
MaxUncached = Annotated[Text, _limit("--max-uncached", "LIMIT", "Uncached prompt tokens: 12000, 30%, +2% or +500.")]
MaxRejected = Annotated[Text, _limit("--max-rejected", "LIMIT", "Requests answered with 400: 0, 1% or +5.")]
MaxChanged = Annotated[
    Text, _limit("--max-changed-requests", "LIMIT", "Requests of another class than before: 10, 1%.")
]
Estimates = Annotated[bool, typer.Option("--allow-estimates", help="Also judge token counts that are only estimated.")]
Form = Annotated[Format, typer.Option("--format", "-f", help="How to write it.")]
NOT_EVALUATED: Final = CannotEvaluate.exit_code


@app.command(
    epilog=examples(
        "cachesim gate --baseline 3f9c --max-cost +2% --min-token-hit-rate 40%",
        "cachesim gate --baseline 1 --run 2 --max-changed-requests 0 --max-rejected +0",
        "cachesim gate --min-cacheable-hit-rate 60% --max-uncached 30%    # no baseline needed",
        "cachesim gate --baseline 1 --run 1 --policy dwctl-10.13 --baseline-policy dwctl-8.63 --max-cost +0%",
    )
)
def gate(
    db: Database = DEFAULT_DATABASE,
    run: Run = "latest",
    baseline: Baseline = None,
    policy: Policy = None,
    tariff: Tariff = None,
    baseline_policy: BasePolicy = None,
    max_cost: MaxCost = None,
    min_token_hit_rate: MinToken = None,
    min_cacheable_hit_rate: MinCacheable = None,
    max_uncached: MaxUncached = None,
    max_rejected: MaxRejected = None,
    max_changed_requests: MaxChanged = None,
    allow_estimates: Estimates = False,
    form: Form = Format.TABLE,
    output: Output = None,
) -> None:
    """Check a stored run against limits. Exit code 0: all pass; 1: one fails; 3: one cannot be evaluated.

    A baseline with the same requests is compared over those that both bill; with other requests cost and uncached
    tokens are compared per prompt token, and the answer says so. Unpriced requests, unknown prompts, a rate without a
    denominator and estimated token counts (unless allowed) cannot be evaluated: a gate never passes on a figure it does
    not have.
    """
    from cachesim.report.gate import CHECKS, COLUMNS, evaluate, parse_limit, verdict
    from cachesim.report.runs import find_replay, show_run
    from cachesim.store.db import open_database

    given = dict(
        zip(
            CHECKS,
            (max_cost, min_token_hit_rate, min_cacheable_hit_rate, max_uncached, max_rejected, max_changed_requests),
            strict=True,
        )
    )
    limits = {name: parse_limit(name, text) for name, text in given.items() if text is not None}
    if not limits:
        raise UsageError("gate: no limit given; for example --max-cost +2% or --min-token-hit-rate 40%")
    with open_database(db, read_only=True) as con:
        side = _side(con, find_replay(con, run), policy, tariff)
        base = None
        if baseline is not None:
            base_no = find_replay(con, baseline)
            base = _side(con, base_no, baseline_policy or policy or _policy_of(con, base_no, side.policy), tariff)
            if base == side:
                raise UsageError("gate: the run is its own baseline; name another --baseline or --baseline-policy")
        checks = evaluate(con, side, base, limits, allow_estimates=allow_estimates)
        runs = [show_run(con, found.run_no) for found in (side, base) if found is not None]
    rows = [check.row() for check in checks]
    with suppress(BrokenPipeError):  # the verdict is the exit code, whether anybody reads on or not
        if form is Format.TABLE:
            _print(checks, side, base, output)
        else:
            entries = {found.digest: found.entry() for found in runs}.values()
            emit(Report("gate", COLUMNS, rows, (), list(entries), runs[0].assumptions, runs[0].problems), form, output)
        sys.stdout.flush()
    result = verdict(checks)
    if result != "pass":
        raise typer.Exit(1 if result == "fail" else NOT_EVALUATED)


def _policy_of(con: duckdb.DuckDBPyConnection, run_no: int, wanted: str) -> str | None:
    """The run's own policy where the baseline holds it too, None for the baseline's only one; UsageError otherwise."""
    from cachesim.report.query import variants_of

    names = list(dict.fromkeys(v.policy for v in variants_of(con, run_no) if v.kind == "policy"))
    if wanted in names:
        return wanted
    if len(names) > 1:
        raise UsageError(f"gate: the baseline holds {', '.join(names)}, not {wanted}; choose with --baseline-policy")
    return None


def _side(con: duckdb.DuckDBPyConnection, run_no: int, policy: str | None, tariff: str | None) -> Side:
    """The first variant of that policy and tariff; raises UsageError naming what the run has."""
    from cachesim.report.compare import Side
    from cachesim.report.query import Filters, shown_variants
    from cachesim.report.runs import show_run

    chosen = Filters(policies=(policy,) if policy else (), tariffs=(tariff,) if tariff else ())
    variants = [v for v in shown_variants(con, run_no, chosen) if v.kind == "policy"]
    if not variants:
        raise UsageError(f"run {run_no}: has no replay of policy {policy} with tariff {tariff}")
    run, first = show_run(con, run_no), variants[0]
    return Side(
        run_no, run.digest, run.trace_no, first.variant_no, first.policy, first.tariff or "", first.markers, Filters()
    )


def _print(checks: Sequence[Check], side: Side, base: Side | None, output: Path | None) -> None:
    from cachesim.report.gate_screen import print_checks

    with screen(output) as out:
        print_checks(out, checks, side, base)
