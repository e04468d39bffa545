"""What the options of `cachesim compare` say about its two sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cachesim.errors import UsageError

if TYPE_CHECKING:
    import duckdb

    from cachesim.comparison import Wanted
    from cachesim.report.query import Filters


@dataclass(frozen=True, slots=True)
class Sides:
    """What was asked for, option by option: two values are A and B, one is for both."""

    runs: Sequence[str]
    policies: Sequence[str]
    tariffs: Sequence[str]
    markers: Sequence[str]
    periods: Sequence[str]
    since: str | None
    until: str | None
    filters: Filters

    def wanted(self, con: duckdb.DuckDBPyConnection) -> tuple[Wanted, Wanted]:
        """Both sides; raises UsageError where there is only one, or more than two."""
        from cachesim.report.names import check_names
        from cachesim.report.query import variants_of
        from cachesim.report.runs import find_replay

        options = {"run": self.runs, "policy": self.policies, "tariff": self.tariffs, "markers": self.markers,
                   "period": self.periods}  # fmt: skip
        for name, values in options.items():
            if len(values) > 2:
                raise UsageError(f"--{name}: {len(values)} of them; a comparison has two sides")
        policies, tariffs = self.policies, self.tariffs
        if all(len(values) < 2 for values in options.values()):
            variants = [v for v in variants_of(con, find_replay(con, (*self.runs, "latest")[0])) if v.kind == "policy"]
            policies = policies or list(dict.fromkeys(v.policy for v in variants))
            tariffs = tariffs or list(dict.fromkeys(v.tariff for v in variants if v.tariff))
            if sorted((len(policies), len(tariffs))) != [1, 2]:
                raise UsageError(
                    "compare: name two sides: two of --policy, --tariff, --markers, --run or --period; this run has "
                    f"the policies {', '.join(policies)} and the tariffs {', '.join(tariffs)}"
                )
        chosen = (self.runs or ["latest"], policies, tariffs, self.markers, self.periods)
        a, b = (self._wanted(con, *(_pick(values, side) for values in chosen)) for side in (0, 1))
        check_names(con, [a.run_no, b.run_no], self.filters)
        return a, b

    def _wanted(
        self,
        con: duckdb.DuckDBPyConnection,
        run: str | None,
        policy: str | None,
        tariff: str | None,
        markers: str | None,
        period: str | None,
    ) -> Wanted:
        from cachesim.cli.replay import parse_markers
        from cachesim.comparison import Wanted
        from cachesim.report.runs import find_replay

        strategy = parse_markers(markers) if markers else None
        filters = self._filters(con, period)
        return Wanted(find_replay(con, run or "latest"), policy, tariff, strategy, filters, period)

    def _filters(self, con: duckdb.DuckDBPyConnection, period: str | None) -> Filters:
        from cachesim.report.times import check_order, parse_instant

        since, until, option = self.since, self.until, ("--since", "--until")
        if period is not None:
            if since or until:
                raise UsageError("--period: goes without --since and --until, which are for both sides")
            since, dots, until = period.partition("..")
            option = ("--period", "--period")
            if not dots or not (since or until):
                raise UsageError(f"--period {period!r}: FROM..UNTIL was expected, such as 2026-03-02..2026-03-09")
        zone = self.filters.timezone
        since_us = parse_instant(con, option[0], since, zone) if since else None
        until_us = parse_instant(con, option[1], until, zone) if until else None
        check_order(f"--period {period}" if period else "--since, --until", since_us, until_us)
        return replace(self.filters, since_us=since_us, until_us=until_us)


def _pick(values: Sequence[str], side: int) -> str | None:
    return values[min(side, len(values) - 1)] if values else None
