"""How local counts differ from reported prompt tokens: what chat template and tools add, what an estimate misses."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from cachesim.report.query import Filters, where

if TYPE_CHECKING:
    import duckdb

Row = dict[str, Any]
COLUMNS: Final = (
    "run", "model", "with_tools", "counted", "requests", "messages", "local_tokens", "reported_prompt_tokens", "drift",
    "uncounted_tokens", "uncounted_per_request", "uncounted_per_message", "off_median", "off_p95",
)  # fmt: skip
_ROWS: Final = """
SELECT digest AS run, model, tools > 0 AS with_tools,
  CASE WHEN exact THEN 'exact' WHEN factor_e4 IS NULL THEN 'estimated'
    ELSE format('estimated × {{:d}}.{{:04d}}', factor_e4 // 10000, factor_e4 % 10000) END AS counted,
  count(*) AS requests, sum(messages)::BIGINT AS messages, sum(local_tokens)::BIGINT AS local_tokens,
  sum(prompt_tokens)::BIGINT AS reported_prompt_tokens, sum(local_tokens) / sum(prompt_tokens) - 1 AS drift,
  sum(prompt_tokens - local_tokens)::BIGINT AS uncounted_tokens,
  sum(prompt_tokens - local_tokens) / count(*) AS uncounted_per_request,
  sum(prompt_tokens - local_tokens) / nullif(sum(messages), 0) AS uncounted_per_message,
  quantile_disc(abs(local_tokens - prompt_tokens) / prompt_tokens, 0.5) AS off_median,
  quantile_disc(abs(local_tokens - prompt_tokens) / prompt_tokens, 0.95) AS off_p95
FROM (SELECT runs.digest, r.*, t.exact, t.factor_e4 FROM runs JOIN requests r USING (trace_no)
  JOIN trace_tokenizers t ON t.trace_no = r.trace_no AND t.tokenizer_no = r.tokenizer_no WHERE runs.run_no = {run_no})
WHERE succeeded AND NOT prompt_estimated AND prompt_tokens > 0 AND local_tokens IS NOT NULL{filters}
GROUP BY ALL ORDER BY model, with_tools, counted
"""


def drift_rows(con: duckdb.DuckDBPyConnection, run_no: int, filters: Filters) -> list[Row]:
    """One row per model, with and without tools, of COLUMNS; most prompt tokens first.

    Over successful requests with both counts. with_tools and messages are None for traces of a cachesim that did not
    count them.
    """
    con.execute(_ROWS.format(run_no=run_no, filters=where(filters)))
    names = [column[0] for column in con.description or []]
    rows = [dict(zip(names, row, strict=True)) for row in con.fetchall()]
    of_model: Counter[str] = Counter()
    for row in rows:
        of_model[row["model"]] += row["reported_prompt_tokens"]
    return sorted(rows, key=lambda row: -of_model[row["model"]])


def headline(rows: list[Row]) -> str:
    """What all rows together say."""
    requests = sum(row["requests"] for row in rows)
    if not requests:
        return "No drift to report: no successful request has both a local count and reported prompt tokens."
    return (
        f"{requests:,} requests were counted here and by the provider. Uncounted is reported − local: a chat template"
        " adds 3 to 10 tokens a message, and renders tools in its own way."
    )
