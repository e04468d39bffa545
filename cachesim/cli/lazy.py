"""The command table: each command's module is imported only when that command runs, so `--help` is instant.

A command `name` is a module `cachesim.cli.<name>` (dashes become underscores) with `app = typer.Typer()` and one
`@app.command(epilog=examples(...))`, or several under a callback. A new command is that module and a line in COMMANDS.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True, slots=True)
class Entry:
    """A command as `cachesim --help` lists it."""

    name: str
    panel: str
    help: str


COMMANDS: Final[tuple[Entry, ...]] = (
    Entry("replay", "Replay", "Replay request logs through one or more cache policies and tariffs."),
    Entry("check", "Replay", "Read logs and configuration without replaying, and say what would be assumed."),
    Entry("init", "Replay", "Write a commented cachesim.toml to start from, made from a log."),
    Entry("report", "Results", "Hit rates and bills of a run, by model, principal, day, tag, request …"),
    Entry("index", "Results", "The cache index over time: what is live when, how often read, and dead writes."),
    Entry("runs", "Results", "List, show and delete the runs of a database."),
    Entry("tune", "What if", "Which floor, lifetime, markers, walk-back, policy or tariff, from one run."),
    Entry("losers", "What if", "Who pays more with caching than without, and writes that nobody read."),
    Entry("compare", "What if", "Two policies, tariffs, marker strategies, runs or periods: what changes for whom."),
    Entry("gate", "What if", "Check a run against limits and a baseline, for CI: exit 0, 1, or 3 if it cannot be."),
    Entry("tariffs", "Rules and proofs", "Show, check and compare price ledgers: TOML, CSV, Parquet, or mixed."),
    Entry("policies", "Rules and proofs", "The classifier versions, rule by rule, and where they differ."),
    Entry("conformance", "Rules and proofs", "Check the classifier against golden cases of the real gateway."),
    Entry("synth", "Rules and proofs", "Write a synthetic request log to try things on."),
)
_CONTEXT: Final = {"help_option_names": ["-h", "--help"]}
_BY_NAME: Final = {entry.name: entry for entry in COMMANDS}


def examples(*lines: str) -> str:
    """The epilog of a command's help: one example a line (`command  # what it does`)."""
    return "\n".join(["[bold]Examples[/bold]", *(f"  {line.replace('[', chr(92) + '[')}" for line in lines)])


class ReaderGone(Exception):
    """Nobody reads the output any more (`| head`)."""


class LazyGroup(TyperGroup):
    """Lists commands from COMMANDS and imports a command's module when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_BY_NAME)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A stand-in that carries only the name and the help of the list."""
        entry = _BY_NAME.get(cmd_name)
        return entry and TyperCommand(entry.name, help=entry.help, rich_help_panel=entry.panel, add_help_option=False)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # typer would end with 1; a reader that has seen enough is no failure
            raise ReaderGone from None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        self.commands = {
            name: self.get_command(ctx, name) for name in _BY_NAME
        }  # the names `did you mean` chooses from
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name) if command is not None and name is not None else command, rest


def load(name: str) -> Any:
    """The real command, its module imported now."""
    module = import_module(f"cachesim.cli.{name.replace('-', '_')}")
    command = typer.main.get_command(module.app)
    command.name = name
    # typer adds these to every app; here they belong to the whole program only
    command.params = [p for p in command.params if p.name not in ("install_completion", "show_completion")]
    return command


def _version(wanted: bool) -> None:
    if wanted:
        from cachesim import __version__

        typer.echo(f"cachesim {__version__}")
        raise typer.Exit


def application() -> Any:
    """The whole program as one command."""
    app = typer.Typer(
        cls=LazyGroup,
        name="cachesim",
        rich_markup_mode="rich",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings=_CONTEXT,
        epilog=examples(
            "cachesim synth demo.jsonl        # a log to play with",
            "cachesim replay demo.jsonl       # what caching would have done to it",
            "cachesim report --by principal   # who gains, who loses",
        ),
    )

    @app.callback()
    def cachesim(
        version: Annotated[
            bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
        ] = False,
    ) -> None:
        """Replay captured LLM request logs through dwctl's exact prompt-cache classifier, offline."""

    return typer.main.get_command(app)


def split_commas(values: Iterable[str] | None) -> tuple[str, ...]:
    """Repeatable options that also take lists: ['model,day', 'tier'] → ('model', 'day', 'tier')."""
    return tuple(part.strip() for value in values or () for part in value.split(",") if part.strip())
