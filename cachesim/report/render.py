"""What people see: the first screen of a replay, and report tables in blocks of one policy and tariff."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from cachesim.report.columns import definition
from cachesim.report.facts import TIERS, BreakEven, Coverage, break_even, coverage
from cachesim.report.formats import clean
from cachesim.report.headline import headline
from cachesim.report.query import Filters, Variant, variant_rows, variants_of
from cachesim.report.runs import Run, show_run
from cachesim.report.sensitivity import line_of
from cachesim.report.tables import NONE, number, percent, table, table_columns

if TYPE_CHECKING:
    import duckdb
    from rich.console import Console
    from rich.table import Table

Row = dict[str, Any]
MODELS_SHOWN: Final = 20
LINES_SHOWN: Final = 8
_LEAD: Final = ("run", "policy", "tariff", "markers")
_FIRST: Final = (
    "model", "requests", "prompt_tokens", "read_tokens",
    "creation_5m_tokens", "creation_1h_tokens", "creation_24h_tokens",
    "token_hit_rate", "ideal_rate", "cacheable_hit_rate", "request_hit_rate", "list", "charged", "delta", "unpriced",
    "requests_failed", "requests_rejected", "rejected_list",
)  # fmt: skip


@dataclass(slots=True)
class Screen:
    """Everything the first screen needs, read once."""

    con: duckdb.DuckDBPyConnection
    run: Run
    variants: list[Variant]
    totals: dict[int, Row]
    models: dict[int, list[Row]]

    @property
    def policies(self) -> list[Variant]:
        return [v for v in self.variants if v.kind != "bound"]

    def bound(self, policy: str, beside: Variant) -> Variant | None:
        """The bound called `policy`, of the same body rules as `beside` where there are several."""
        found = [v for v in self.variants if v.kind == "bound" and v.policy.partition(" (")[0] == policy]
        return next((v for v in found if v.rules_no == beside.rules_no), found[0] if found else None)


def first_screen(
    con: duckdb.DuckDBPyConnection,
    run_no: int,
    console: Console,
    *,
    db: str | None = None,
    explain: bool = False,
    stored: bool = True,
) -> None:
    """Print what a replay found: headline, a table per policy and tariff, the facts behind it, and what to run next.

    db: the --db option to repeat in suggested commands, None for the default database; explain: with definitions;
    stored: false for a run that is gone when the command ends, so that nothing can be asked of it.
    """
    screen = _read(con, run_no)
    if not screen.policies:
        console.print("This run has no policy to report.")
        return
    first = screen.policies[0]
    seen = coverage(con, run_no, first.variant_no)
    estimated = any(not t["exact"] for t in screen.run.tokenizers)
    unknown = any(assumption["code"] == "completion_unknown" for assumption in screen.run.assumptions)
    totals = screen.totals[first.variant_no]
    say(console, headline(totals, seen, estimated_counts=estimated, unknown_completions=unknown), "bold")
    dropped: list[str] = []
    if len(screen.policies) > 1:
        dropped += _comparison(screen, console)
    for variant in screen.policies:
        dropped += _block(screen, variant, console)
    console.print()
    steps = _next_steps(screen, seen, f" --db {db}" if db else "") if stored else []
    console.print(_facts(screen, first, seen, steps))
    note_dropped(console, dropped)
    if explain:
        explain_columns(console, [n for n in _FIRST if n != "model"])


def _read(con: duckdb.DuckDBPyConnection, run_no: int) -> Screen:
    shown = Filters(bounds=True)
    variants = variants_of(con, run_no)
    models: dict[int, list[Row]] = {v.variant_no: [] for v in variants}
    for variant_no, row in variant_rows(con, run_no, ["model"], shown):
        models[variant_no].append(row)
    return Screen(con, show_run(con, run_no), variants, dict(variant_rows(con, run_no, [], shown)), models)


def _comparison(screen: Screen, console: Console) -> list[str]:
    """All variants and bounds under each other: what several policies or tariffs are replayed for."""
    rows = list(screen.totals.values())
    lead = [n for n in ("policy", "tariff", "markers") if n in rows[0]]
    figures = [n for n in _FIRST if n not in ("model", "ideal_rate")]
    out, dropped = table([*lead, *table_columns(figures, rows)], rows, console.width)
    console.print()
    console.print(out)
    return dropped


def _block(screen: Screen, variant: Variant, console: Console) -> list[str]:
    ideal = screen.bound("ideal", variant)
    best = {row["model"]: row["token_hit_rate"] for row in screen.models[ideal.variant_no]} if ideal else {}
    rows = [{**row, "ideal_rate": best.get(row["model"])} for row in screen.models[variant.variant_no]]
    rows.sort(key=lambda row: (-row["prompt_tokens"], row["model"] or ""))
    all_ideal = screen.totals[ideal.variant_no]["token_hit_rate"] if ideal else None
    total = {**screen.totals[variant.variant_no], "ideal_rate": all_ideal}
    columns = [n for n in table_columns(_FIRST, [total]) if ideal or n != "ideal_rate"]
    several = len(rows) > 1
    out, dropped = table(columns, rows[:MODELS_SHOWN], console.width, total=total if several else None)
    estimated = any(not tokenizer["exact"] for tokenizer in screen.run.tokenizers)
    say(console, f"\n{variant_name(screen.variants, variant)}{' · tokens estimated' if estimated else ''}", "bold")
    console.print(out)
    if len(rows) > MODELS_SHOWN:
        say(
            console,
            f"{len(rows) - MODELS_SHOWN} more models are in the row `all`; `cachesim report --by model` shows them.",
        )
    return dropped


def variant_name(variants: Sequence[Variant], variant: Variant) -> str:
    """`dwctl-10.13 · tariff default`, with the marker strategy where the run compares several."""
    parts = [clean(variant.policy)]
    if variant.tariff is not None:
        parts.append(f"tariff {clean(variant.tariff)}")
    if len({v.markers for v in variants if v.kind != "bound"}) > 1:
        parts.append(f"markers {clean(variant.markers)}")
    return " · ".join(parts)


def _facts(screen: Screen, first: Variant, seen: Coverage, steps: Sequence[str]) -> Table:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, line in _fact_lines(screen, first, seen, steps):
        grid.add_row(Text(label), Text(line))
    return grid


def _fact_lines(screen: Screen, first: Variant, seen: Coverage, steps: Sequence[str]) -> Iterator[tuple[str, str]]:
    calibrated = {t["calibration"]["model"] for t in screen.run.tokenizers if t["calibration"]}
    yield from _labelled("coverage", _coverage_lines(seen))
    yield from _labelled("bounds", _bound_lines(screen, first))
    yield from _labelled("break-even", _cut(_break_even_lines(screen)))
    yield from _labelled("drift", _cut(_drift_lines(screen.models[first.variant_no], calibrated)))
    yield from _labelled("sensitivity", _sensitivity_lines(screen, first))
    yield from _labelled("assumed", [clean(a["text"]) for a in screen.run.assumptions] or ["nothing"])
    yield from _labelled("problems", problem_lines(screen.run.problems) or ["none"])
    yield from _labelled("next", steps)


def _labelled(label: str, lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    for i, line in enumerate(lines):
        yield ("" if i else label, line)


def _cut(lines: list[str]) -> list[str]:
    rest = len(lines) - LINES_SHOWN
    return [*lines[:LINES_SHOWN], f"{rest} more"] if rest > 1 else lines


def _coverage_lines(seen: Coverage) -> list[str]:
    tokens = f"{number(seen.classified_tokens)} of {number(seen.prompt_tokens)} prompt tokens"
    requests = f"{number(seen.classified)} of {number(seen.requests)} requests"
    lines = [f"classified {_share(requests, seen.classified, seen.requests)}, "]
    lines[0] += _share(tokens, seen.classified_tokens, seen.prompt_tokens)
    if inactive := seen.reasons.get("inactive"):
        lines.append(f"not classified: {_counts(inactive)}")
    parts = []
    for outcome in ("read", "read_and_create", "create", "zero", "rejected"):
        if n := seen.outcomes[outcome]:
            why = seen.reasons.get(outcome)
            parts.append(f"{outcome} {number(n)}" + (f" ({_counts(why)})" if why else ""))
    if parts:
        lines.append("outcomes: " + " · ".join(parts))
    if seen.failed:
        which = "request is" if seen.failed == 1 else "requests are"
        lines.append(f"{number(seen.failed)} failed {which} classified, but in no total and no rate")
    return lines


def _share(text: str, part: int, whole: int) -> str:
    return f"{text} ({percent(part / whole)})" if whole else text


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{clean(name)} {number(n)}" for name, n in counts.items())


def _bound_lines(screen: Screen, first: Variant) -> list[str]:
    parts = []
    for policy, meaning in (("off", "no cache"), ("ideal", "every prefix seen before is read")):
        if bound := screen.bound(policy, first):
            rate = screen.totals[bound.variant_no]["token_hit_rate"]
            parts.append(f"{policy} {NONE if rate is None else percent(rate)} ({meaning})")
    rate = screen.totals[first.variant_no]["token_hit_rate"]
    return [f"token hit rate {percent(rate)} between {' and '.join(parts)}"] if parts and rate is not None else []


def _break_even_lines(screen: Screen) -> list[str]:
    """One line per cache tariff; variants that say the same are said once."""
    texts = {
        v.variant_no: [break_even_text(b) for b in break_even(screen.con, screen.run.run_no, v.variant_no)]
        for v in screen.policies
    }
    if len({tuple(lines) for lines in texts.values()}) == 1:
        return texts[screen.policies[0].variant_no]
    return [f"{variant_name(screen.variants, v)}: {line}" for v in screen.policies for line in texts[v.variant_no]]


def break_even_text(tariff: BreakEven) -> str:
    """`standard (write 5m 1.25; read 0.1): pays above a cacheable hit rate of 21.7 % (5m); measured 83.1 %, pays`."""
    used = [i for i in range(len(TIERS)) if tariff.created[i]] or [0, 1]
    writes = ", ".join(f"{TIERS[i]} {tariff.write[i]:f}" for i in used)
    limits = [f"{percent(float(rate))} ({TIERS[i]})" for i in used if (rate := tariff.rate(i)) is not None]
    needs = f"pays above a cacheable hit rate of {', '.join(limits)}" if limits else "pays at no hit rate"
    head = f"{clean(tariff.name)} (write {writes}; read {tariff.read:f}): {needs}"
    if tariff.measured is None:
        return f"{head}; nothing was cached"
    return f"{head}; measured {percent(tariff.measured)}, {'pays' if tariff.pays else 'does not pay'}"


def _drift_lines(models: Sequence[Row], calibrated: set[str]) -> list[str]:
    known = [row for row in models if row["drift"] is not None]
    known.sort(key=lambda row: -abs(row["drift"]))
    return [
        f"{clean(row['model'] or NONE)}: {'calibrated' if row['model'] in calibrated else 'local'} count"
        f" {percent(row['drift'], signed=True)} against"
        f" {number(row['reported_prompt_tokens'])} reported prompt tokens"
        for row in known
    ]


def _sensitivity_lines(screen: Screen, first: Variant) -> list[str]:
    exact = all(tokenizer["exact"] for tokenizer in screen.run.tokenizers)
    return line_of(screen.con, screen.run.run_no, first, exact=exact)


def problem_lines(problems: dict[str, Any]) -> list[str]:
    """What was wrong with the inputs, one line a kind; zeros are left out."""
    lines = []
    for name, value in problems.items():
        if isinstance(value, dict) and any(value.values()):
            lines.append(f"{clean(name).replace('_', ' ')}: {_counts(value)}")
        elif isinstance(value, int) and value:
            lines.append(f"{clean(name).replace('_', ' ')}: {number(value)}")
    return lines


def _next_steps(screen: Screen, seen: Coverage, db: str) -> list[str]:
    steps = []
    if seen.classified < seen.requests or seen.outcomes["zero"] or seen.outcomes["rejected"]:
        steps.append(f"cachesim report --by reason{db}  # why requests did not use the cache")
    if len(screen.policies) > 1 or seen.classified:
        steps.append(f"cachesim report --by principal --sort delta:asc --top 10{db}  # who saves most")
        steps.append(f"cachesim report --by request --format csv --output requests.csv{db}  # every request")
    return [f"{i}. {step}" for i, step in enumerate(steps, 1)]


def print_report(
    console: Console,
    by: Sequence[str],
    rows: Sequence[Row],
    totals: Sequence[Row] | None,
    columns: Sequence[str],
    *,
    estimated: bool = False,
) -> list[str]:
    """One table per policy and tariff, the total of the block as its last row; returns the columns that did not fit.

    estimated: tokens were counted with the embedded tokenizer, which every table says.
    """
    dropped: list[str] = []
    names = [n for n in columns if n not in _LEAD]
    shown = table_columns(names, [*rows, *(totals or ())])
    for i, (lead, group) in enumerate(groupby(rows, key=lead_key)):
        total = next((t for t in totals or () if lead_key(t) == lead), None) if by else None
        block = list(group)
        out, left = table(
            shown, block, console.width, total=total if total and _differs(total, block, shown) else None, keep=by
        )
        title = f"{clean(str(lead[0]))} · tariff {clean(str(lead[1]))}" if lead[1] is not None else clean(str(lead[0]))
        title += f" · markers {clean(str(lead[2]))}" if lead[2] else ""
        say(console, ("\n" if i else "") + title + (" · tokens estimated" if estimated else ""), "bold")
        console.print(out)
        dropped += left
    return dropped


def _differs(total: Row, block: Sequence[Row], shown: Sequence[str]) -> bool:
    """False where the block's only row is already everything."""
    return len(block) > 1 or any(total[n] != block[0][n] for n in shown if n in total)


def lead_key(row: Row) -> tuple[Any, Any, Any]:
    """What makes a block: policy, tariff and, where the run compares several, the marker strategy."""
    return row["policy"], row["tariff"], row.get("markers")


def note_dropped(console: Console, dropped: Sequence[str], elsewhere: str = "--format csv") -> None:
    """Name the columns that did not fit, if any, and what has them all the same."""
    if names := list(dict.fromkeys(dropped)):
        say(
            console,
            f"Too narrow for: {', '.join(names)} (a wider terminal, COLUMNS=200, or {elsewhere} has them).",
            "dim",
        )


def explain_columns(console: Console, names: Sequence[str], *, of_a_request: bool = False) -> None:
    """One line per column: what it counts, with numerator and denominator."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(overflow="fold")
    grid.add_column(overflow="fold")
    for name in names:
        if text := definition(name, of_a_request=of_a_request):
            grid.add_row(Text(name, style="bold"), Text(text))
    console.print()
    console.print(grid)


def say(console: Console, text: str, style: str = "") -> None:
    """Print words without markup or highlighting, folded at the width of the terminal; escapes are made visible."""
    from rich.text import Text

    console.print(Text("\n".join(map(clean, text.split("\n"))), style=style))
