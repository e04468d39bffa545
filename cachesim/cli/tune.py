"""`cachesim tune`: what other floors, lifetimes, markers, walk-backs and tariffs would do, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cachesim.cli.inputs import ConfigFiles
from cachesim.cli.lazy import examples, split_commas
from cachesim.cli.output import Database, Explain, Form, Output, Quiet, emit, screen, whole_file
from cachesim.cli.report import RunName
from cachesim.errors import CannotEvaluate, UsageError, unknown
from cachesim.recommend import Objective, Refusal
from cachesim.report.formats import Format
from cachesim.store.db import DEFAULT_DATABASE

if TYPE_CHECKING:
    import duckdb

    from cachesim.core.ledger import TariffSet
    from cachesim.core.policy import Policy
    from cachesim.fan_out import FanOut
    from cachesim.report.tuning import Tuning
    from cachesim.run import RunPlan
    from cachesim.sweep.grid import Axes

app = typer.Typer()
DEFAULT_FLOORS: Final = "256:8192:256"
_GRID: Final = "What to try (every combination; each axis also holds what the run has)"
_ANSWER: Final = "What to answer"


class KernelChoice(StrEnum):
    """Which code replays the grid."""

    AUTO = "auto"
    PLAIN = "plain"
    COMPILED = "compiled"


def _axis(name: str, metavar: str, what: str) -> Any:
    return typer.Option(name, metavar=metavar, help=what, rich_help_panel=_GRID)


def _choice(name: str, metavar: str | None, what: str) -> Any:
    return typer.Option(name, metavar=metavar, help=what, rich_help_panel=_ANSWER)


Floors = Annotated[
    list[str] | None,
    _axis("--floor", "LIST", "Floors in tokens: 256:8192:256 (the default if nothing else is tried), 512,1024,2048."),
]
Ttls = Annotated[
    list[str] | None,
    _axis("--ttl", "LIST", "Lifetimes for every entry: 5m,15m,1h; 1h+5m: tools and system blocks 1h, others 5m."),
]
Windows = Annotated[list[str] | None, _axis("--window", "LIST", "sliding: a read extends the life; fixed: not.")]
WalkBacks = Annotated[list[str] | None, _axis("--walk-back", "LIST", "Block boundaries looked up per breakpoint.")]
Markers = Annotated[list[str] | None, _axis("--markers", "LIST", "Marker strategies, as for `replay`.")]
Policies = Annotated[list[str] | None, _axis("--policy", "NAME", "A preset of `cachesim policies` (repeatable).")]
Rules = Annotated[list[str] | None, _axis("--set", "RULE=VALUE", "Change one rule of the policies tried, as TOML.")]
Tariffs = Annotated[list[str] | None, _axis("--tariff", "FILE[,FILE]", "An alternative tariff set (repeatable).")]
Multipliers = Annotated[
    list[str] | None,
    _axis("--multiplier", "LIFETIME=FACTOR", "Write price of a lifetime no tariff prices, as 15m=1.4 (repeatable)."),
]
Goal = Annotated[Objective, _choice("--objective", None, "What the floor is chosen for.")]
HoldOut = Annotated[str, _choice("--hold-out", "SHARE", "The log's last part that confirms what the first promised.")]
By = Annotated[list[str] | None, _choice("--by", "NAME,…", "Tables and rows by model (default), principal, part.")]
ByModel = Annotated[bool, _choice("--by-model", None, "Same as --by model.")]
Top = Annotated[int, typer.Option("--top", min=2, metavar="N", help="Rows per table along one axis.")]
Chart = Annotated[bool, typer.Option("--chart/--no-chart", help="Draw the curve of every model.")]
Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Also write the curves as one HTML page.")]
Jobs = Annotated[int | None, typer.Option("--jobs", "-j", min=1, metavar="N", help="Workers (default: one a core).")]
Kernels = Annotated[KernelChoice, typer.Option("--kernel", help="compiled needs the extra `fast`; same results.")]


@app.command(
    epilog=examples(
        "cachesim tune                                          # which floor, per model",
        "cachesim tune --floor 512,1024,2048 --objective token-hit-rate",
        "cachesim tune --ttl 5m,15m,1h,1h+5m --multiplier 15m=1.4   # which lifetime",
        "cachesim tune --markers automatic,system+last-user --walk-back 10,20,40",
        "cachesim tune --floor 256:8192:256 --tariff old.toml --tariff new.toml --format csv -o grid.csv",
    )
)
def tune(
    floor: Floors = None,
    ttl: Ttls = None,
    window: Windows = None,
    walk_back: WalkBacks = None,
    markers: Markers = None,
    policy: Policies = None,
    set_rules: Rules = None,
    tariff: Tariffs = None,
    multiplier: Multipliers = None,
    objective: Goal = Objective.CUSTOMER_COST,
    hold_out: HoldOut = "40%",
    by: By = None,
    by_model: ByModel = False,
    run: RunName = "latest",
    db: Database = DEFAULT_DATABASE,
    config: ConfigFiles = None,
    jobs: Jobs = None,
    kernel: Kernels = KernelChoice.AUTO,
    top: Top = 12,
    chart: Chart = True,
    html: Html = None,
    form: Form = Format.TABLE,
    output: Output = None,
    explain: Explain = False,
    quiet: Quiet = False,
) -> None:
    """Replay a run's prepared log under a grid of floors, lifetimes, markers, walk-backs, policies and tariffs.

    Nothing is read again unless a policy needs the bodies. Each variant is replayed in full and compared with `now`,
    the run as it is. A floor is recommended per model where the evidence suffices; if for none, the exit code is 3.
    """
    from cachesim.report.runs import find_replay
    from cachesim.report.tuning import read_tuning
    from cachesim.store.db import open_database
    from cachesim.sweep import sweep
    from cachesim.sweep.grid import parse_multipliers

    share = parse_share(hold_out)
    groups = list(split_commas(by)) + (["model"] if by_model else []) or ["model"]
    _check_groups(groups)
    multipliers = parse_multipliers(multiplier or ())
    with open_database(db, must_exist=True) as con:
        base = find_replay(con, run)
        axes = make_axes(
            _present(con, base), floor, ttl, window, walk_back, markers, multipliers,
            _policies(con, base, config, policy, set_rules), _tariffs(con, base, tariff),
        )  # fmt: skip
        _check_axes(axes, html, quiet)
        with _sweeping(quiet) as started:
            number = sweep(con, base, axes, hold_out=share, jobs=jobs, kernel=kernel.value, progress=started)
        tuning = read_tuning(con, number, groups, objective)
        if walk_back:
            tuning.fan_outs = _fan_outs(con, base, quiet=quiet)
    if html is not None:
        _write_page(tuning, html)
    shown = None if db == DEFAULT_DATABASE else db
    _write(tuning, form, output, top, shown, chart=chart, explain=explain)
    if tuning.refused:
        raise _refusal(tuning)


def _check_axes(axes: Axes, html: Path | None, quiet: bool) -> None:
    if html is not None and not axes.floors:
        raise UsageError("--html: its curves run over floors; add --floor, for example --floor 256:8192:256")
    if not quiet:
        _name_unpriced(axes)


def _name_unpriced(axes: Axes) -> None:
    from cachesim.sweep.grid import unpriced_lifetimes

    for name in unpriced_lifetimes(axes.ttls, axes.multipliers):
        typer.echo(f"cachesim: --ttl {name}: no tariff prices it, tokens only; add --multiplier {name}=…", err=True)


def _refusal(tuning: Tuning) -> CannotEvaluate:
    facts = list(dict.fromkeys(a.why for a in tuning.answers if isinstance(a, Refusal)))
    return CannotEvaluate(f"tune: no floor can be recommended; {'; '.join(facts) or 'no model was asked'}")


@contextmanager
def _sweeping(quiet: bool) -> Iterator[Callable[[int], Callable[[int], None]]]:
    """What the sweep tells how much there is to do, in requests × variants."""
    from cachesim.cli.progress import progress

    with ExitStack() as stack:
        yield lambda work: stack.enter_context(progress(work, "sweeping", quiet, unit="requests × variants"))


def parse_share(text: str) -> Fraction:
    """`40%` or `0.4` as a fraction between 0 and 1. Raises UsageError."""
    try:
        share = Fraction(text.removesuffix("%").strip()) / (100 if text.endswith("%") else 1)
    except (ValueError, ZeroDivisionError):
        share = Fraction(0)
    if not 0 < share < 1:
        raise UsageError(f"--hold-out {text!r}: a share between 0 and 100% was expected, such as 40%")
    return share


def _check_groups(groups: Sequence[str]) -> None:
    from cachesim.report.query import SWEEP_DIMENSIONS

    for name in groups:
        if name not in SWEEP_DIMENSIONS:
            raise UsageError(unknown("--by", name, SWEEP_DIMENSIONS))


def _present(con: duckdb.DuckDBPyConnection, run_no: int) -> dict[str, Any]:
    """The settings of the run's first variant, by axis."""
    from cachesim.report.query import variants_of

    first = variants_of(con, run_no)[0]
    return {"walk_back": first.walk_back, "window": first.window, "markers": first.markers}


def make_axes(
    present: dict[str, Any],
    floor: Sequence[str] | None,
    ttl: Sequence[str] | None,
    window: Sequence[str] | None,
    walk_back: Sequence[str] | None,
    markers: Sequence[str] | None,
    multipliers: dict[str, Any],
    policies: Sequence[Policy] = (),
    tariffs: Sequence[TariffSet] = (),
) -> Axes:
    """The grid of the options. An axis that is given also holds what the run has, so that every figure has its `now`.

    Without any axis the floors of DEFAULT_FLOORS are tried. Raises UsageError for what does not fit.
    """
    from cachesim.cli.replay import parse_markers
    from cachesim.sweep.grid import Axes, parse_floors, parse_ttls, parse_walk_backs, parse_windows

    if not any((floor, ttl, window, walk_back, markers, policies, tariffs)):
        floor = [DEFAULT_FLOORS]
    strategies = [parse_markers(name) for name in (present["markers"], *split_commas(markers))] if markers else []
    return Axes(
        floors=(None, *parse_floors(",".join(floor))) if floor else (),
        ttls=(None, *parse_ttls(ttl)) if ttl else (),
        windows=_each(parse_windows([present["window"]]), parse_windows(window)) if window else (),
        walk_backs=_each([present["walk_back"]], parse_walk_backs(walk_back)) if walk_back else (),
        strategies=tuple(dict.fromkeys(strategies)),
        tariffs=tuple(tariffs),
        policies=tuple(policies),
        multipliers=multipliers,
    )


def _each(present: Sequence[Any], wanted: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys([*present, *wanted]))


def _policies(
    con: duckdb.DuckDBPyConnection,
    run_no: int,
    config: Sequence[str] | None,
    names: Sequence[str] | None,
    rules: Sequence[str] | None,
) -> list[Policy]:
    """The run's own policy and those of the options; empty without any."""
    from cachesim.cli.replay import change_policy, make_policy
    from cachesim.config import load_config

    settings = load_config(config or ())
    if not names and not rules:
        return []
    own = _plan(con, run_no).policies[0]
    if not names:
        return list(dict.fromkeys([own, change_policy(own, rules or ())]))
    return list(dict.fromkeys([own, *(make_policy(name, settings, rules or ()) for name in names)]))


def _tariffs(con: duckdb.DuckDBPyConnection, run_no: int, specs: Sequence[str] | None) -> list[TariffSet]:
    """The run's own tariff set and those of the options; empty without any."""
    from cachesim.comparison import equal_tariff
    from cachesim.config import load_tariff_sets

    if not specs:
        return []
    own = _plan(con, run_no).tariffs
    others = load_tariff_sets(specs, taken=[tariff.name for tariff in own])
    return [own[0], *(equal_tariff(own[:1], other) or other for other in others)]


def _fan_outs(con: duckdb.DuckDBPyConnection, run_no: int, *, quiet: bool) -> list[FanOut]:
    """What the run's first variant missed because its walk-back ended too early."""
    from cachesim.cli.progress import progress
    from cachesim.collector import no_collection
    from cachesim.fan_out import fan_outs
    from cachesim.report.runs import show_run
    from cachesim.store.trace_reader import load_trace

    plan = _plan(con, run_no)
    trace = load_trace(con, show_run(con, run_no).trace_no)
    with no_collection(), progress(trace.request_count, "looking for fan-outs", quiet, unit="requests") as advance:
        return fan_outs(con, trace, plan.policies[0], plan.strategy, plan.tariffs[0], advance)


def _plan(con: duckdb.DuckDBPyConnection, run_no: int) -> RunPlan:
    from cachesim.stored_plan import stored_plan

    return stored_plan(con, run_no)


def _write(
    tuning: Tuning, form: Format, output: Path | None, top: int, db: str | None, *, chart: bool, explain: bool
) -> None:
    from cachesim.report.tune_screen import tune_screen
    from cachesim.report.tuning import tuning_report

    if form is not Format.TABLE:
        emit(tuning_report(tuning), form, output)
    else:
        with screen(output) as out:
            tune_screen(tuning, out, top=top, chart=chart, explain=explain, db=db)


def _write_page(tuning: Tuning, path: Path) -> None:
    """The curves as one self-contained page."""
    from cachesim.report.chart_page import curve_html
    from cachesim.report.charts import Mark
    from cachesim.report.tune_words import headline, page_marks

    marks = [Mark(label, at, model) for label, at, model in page_marks(tuning)]
    notes = [assumption["text"] for assumption in tuning.run.assumptions]
    page = curve_html(headline(tuning), tuning.models, marks=marks, notes=notes)
    with whole_file(path) as file:
        file.write(page.encode())
