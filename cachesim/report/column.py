"""What a column of a report is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "count", "tokens", "rate", "points", "mean", "money", "exact", "time", "flag"]
"""points: the difference of two rates; exact: a decimal of a ledger, shown with every digit."""
Shown = Literal["always", "if_any", "machine"]
Kept = Literal["always", "requests", "sweep"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of an aggregate report.

    sql: over the sums of CELLS (`s.*`) and the unit price (`p.*`) of a group; shown: in tables always, only where a
    value is neither zero nor null, or in machine formats only; weight: the lightest columns leave a narrow table first;
    kept: `requests` is null for a sweep, `sweep` does not exist for a run that keeps one row per request.
    """

    name: str
    title: str
    unit: str
    kind: Kind
    definition: str
    sql: str
    weight: int = 0
    shown: Shown = "always"
    kept: Kept = "always"
