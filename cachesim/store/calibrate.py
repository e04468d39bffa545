"""Calibrating a trace while it is staged: which models' estimates are scaled, by which factor, and how well it fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cachesim.core.calibration import (
    INHERITED,
    LEAST_REQUESTS,
    OFF,
    Calibration,
    factor_text,
    fitted_factor,
    is_sane,
    parse_factor,
)
from cachesim.prepare.tokenizers import UsedTokenizer
from cachesim.store.db import insert_frame

if TYPE_CHECKING:
    import duckdb

Choose = Callable[[str], tuple[str, str | None]]
"""What is decided in advance about a model: by whom (`configured`, `inherited`), and the factor as text or `off`; None
of one that is to be `fitted`."""

_RESIDUAL_DECIMALS: Final = 6

# Alternate requests in order of arrival: the odd ones are fitted to, the even ones held out, so that both halves see
# the whole log. Sessions are in both halves, so the residual is that of more traffic of the same kind.
_REPORTED: Final = """
CREATE OR REPLACE TEMP TABLE staged_reported AS
SELECT r.row_no, r.model, r.reported_prompt_tokens AS reported, l.tokens AS counted,
  row_number() OVER (PARTITION BY r.model ORDER BY o.seq) % 2 = 1 AS fitted
FROM staged_requests r JOIN staged_order o USING (row_no) JOIN staged_local l USING (row_no)
WHERE r.model IS NOT NULL AND r.reported_prompt_tokens > 0 AND l.tokens > 0
"""
_MODELS: Final = """
SELECT r.model, any_value(r.tokenizer_no), count(s.row_no), count(s.row_no) FILTER (s.fitted),
  sum(s.reported) FILTER (s.fitted), sum(s.counted) FILTER (s.fitted)
FROM staged_requests r JOIN staged_order o USING (row_no) LEFT JOIN staged_reported s USING (row_no)
WHERE r.model IS NOT NULL AND r.tokenizer_no IS NOT NULL GROUP BY r.model ORDER BY min(o.seq)
"""
_RESIDUALS: Final = """
SELECT count(*), quantile_disc(residual, 0.5), quantile_disc(residual, 0.95) FROM (
  SELECT abs((counted * $factor + 5000) // 10000 - reported) / reported AS residual
  FROM staged_reported WHERE model = $model AND NOT (fitted AND $held_out))
"""
_CALIBRATED: Final = """
CREATE OR REPLACE TEMP TABLE staged_calibrated (model VARCHAR, tokenizer_no INTEGER, factor_e4 INTEGER)
"""


@dataclass(slots=True)
class Calibrated:
    """tokenizers: one for each calibrated model; left: models that stay as estimated, as JSON rows saying why."""

    tokenizers: list[UsedTokenizer]
    left: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Model:
    """A model and its tokenizer; sample: its requests with both counts; of the fitting half also the sums."""

    name: str
    tokenizer_no: int
    sample: int
    fitted: int
    reported: int | None
    counted: int | None


def calibrate(con: duckdb.DuckDBPyConnection, used: Sequence[UsedTokenizer], choose: Choose) -> Calibrated:
    """Decide the factor of every model that is counted with an estimating tokenizer of `used`.

    Needs staged_requests, staged_order and staged_local; leaves staged_calibrated, which names the factor and the
    number of the tokenizer of each calibrated model: the numbers follow those of `used`.
    """
    con.execute(_REPORTED)
    con.execute(_CALIBRATED)
    made = Calibrated([], [])
    for model in [_Model(*row) for row in con.execute(_MODELS).fetchall()]:
        base = used[model.tokenizer_no]
        if base.exact:
            continue
        origin, chosen = choose(model.name)
        factor_e4, why = _factor(model, chosen)
        if factor_e4 is None:
            why = origin if (origin, why) == (INHERITED, OFF) else why
            made.left.append({"model": model.name, "requests": model.sample, "why": why})
            continue
        con.execute(_RESIDUALS, {"model": model.name, "factor": factor_e4, "held_out": chosen is None})
        checked, *residuals = con.fetchall()[0]
        fitted = model.fitted if chosen is None else 0
        median, p95 = (None if r is None else round(r, _RESIDUAL_DECIMALS) for r in residuals)
        calibration = Calibration(model.name, factor_e4, origin, fitted, checked, median, p95)
        version = f"{base.version}*{factor_text(factor_e4)}"
        made.tokenizers.append(UsedTokenizer(base.source, version, False, model.tokenizer_no, calibration))
    con.execute("DROP TABLE staged_reported")
    _stage(con, made.tokenizers, len(used))
    return made


def _factor(model: _Model, chosen: str | None) -> tuple[int | None, str]:
    """The factor of a model, or why it has none."""
    if chosen == OFF:
        return None, OFF
    if chosen is not None:
        return parse_factor(chosen), "configured"
    if model.sample < LEAST_REQUESTS or not model.reported or not model.counted:
        return None, "few"
    factor_e4 = fitted_factor(model.reported, model.counted)
    return (factor_e4, "") if is_sane(factor_e4) else (None, f"factor {factor_text(factor_e4)}")


def _stage(con: duckdb.DuckDBPyConnection, made: Sequence[UsedTokenizer], first: int) -> None:
    found = [t.calibration for t in made if t.calibration is not None]
    columns: dict[str, Sequence[Any]] = {
        "model": [c.model for c in found],
        "tokenizer_no": range(first, first + len(found)),
        "factor_e4": [c.factor_e4 for c in found],
    }
    insert_frame(con, "staged_calibrated", columns)
