"""`cachesim policies`: the classifier versions, every rule with its meaning, and where they differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import orjson
import typer

from cachesim.cli.lazy import examples
from cachesim.cli.output import Form, Output, emit, screen
from cachesim.core.policy import DEFAULT_PRESET, PRESETS, RULE_HELP, Policy, rules
from cachesim.errors import UsageError, unknown
from cachesim.report.formats import Format, Report

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer()
COLUMNS: Final = ("policy", "rule", "value", "meaning")


@app.command(
    epilog=examples(
        "cachesim policies                            # all presets side by side",
        "cachesim policies dwctl-10.13                # one preset, every rule",
        "cachesim policies --differences              # only the rules in which presets differ",
        "cachesim replay LOG --set walk_back=40       # a preset with one rule changed",
    )
)
def policies(
    name: Annotated[list[str] | None, typer.Argument(metavar="[NAME]…", help="Presets to show (default: all).")] = None,
    differences: Annotated[bool, typer.Option("--differences", "-d", help="Only rules in which they differ.")] = False,
    form: Form = Format.TABLE,
    output: Output = None,
) -> None:
    """The classifier versions, rule by rule, and where they differ."""
    shown = [_preset(n) for n in dict.fromkeys(name or PRESETS)]
    names = [r for r in RULE_HELP if not differences or len({repr(rules(p)[r]) for p in shown}) > 1]
    if form is Format.TABLE:
        with screen(output) as out:
            _print(shown, names, out)
        return
    rows = [
        {"policy": p.name, "rule": rule, "value": value_text(rules(p)[rule]), "meaning": RULE_HELP[rule]}
        for p in shown
        for rule in names
    ]
    emit(Report("policies", COLUMNS, rows), form, output)


def _preset(name: str) -> Policy:
    if name in PRESETS:
        return PRESETS[name]
    raise UsageError(unknown("policy", name, PRESETS))


def value_text(value: Any) -> str:
    """The value as `--set rule=value` takes it, TOML: true, 20, ["5m", "1h"]; null for no value."""
    return orjson.dumps(value).decode().replace(",", ", ")


def _print(shown: list[Policy], names: list[str], out: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    if not names:
        out.print("These presets do not differ in any rule.")
        return
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    grid.add_column("rule", no_wrap=True)
    for policy in shown:
        grid.add_column(f"{policy.name} (default)" if policy.name == DEFAULT_PRESET else policy.name, overflow="fold")
    grid.add_column("meaning", overflow="fold")
    for rule in names:
        values = [value_text(rules(p)[rule]) for p in shown]
        style = "bold cyan" if len(set(values)) > 1 else ""
        grid.add_row(Text(rule, style=style), *(Text(v, style=style) for v in values), Text(RULE_HELP[rule]))
    out.print(grid)
