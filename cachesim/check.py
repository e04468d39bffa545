"""What a log holds, before anybody replays it: formats, coverage, order, gaps, duplicates, bad lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from cachesim.core.model import BadLine
from cachesim.store.traces import PreparedTrace

if TYPE_CHECKING:
    import duckdb

Row = dict[str, Any]
BAD_LINES_PER_REASON: Final = 3
GAPS_SHOWN: Final = 3

_FILES: Final = """
SELECT i.name, any_value(i.log_format) AS log_format, any_value(i.bytes) AS bytes,
  any_value(i.records) AS records, any_value(i.bad_lines) AS bad_lines,
  min(r.at_us) AS first_at_us, max(r.at_us) AS last_at_us
FROM trace_inputs i LEFT JOIN requests r USING (trace_no, file_no) GROUP BY i.name, i.file_no ORDER BY i.file_no
"""
# A request declares caching if any marker was captured, whatever a policy makes of it.
_MODELS: Final = """
SELECT r.model, count(*) AS requests, count(DISTINCT r.principal) AS principals, count(DISTINCT r.session) AS sessions,
  count(*) FILTER (NOT r.succeeded) AS requests_failed, count(*) FILTER (r.body_state = 'ok') AS parsed,
  count(*) FILTER (r.body_state = 'not_cacheable') AS not_cacheable,
  count(*) FILTER (r.body_state = 'unparseable') AS unparseable,
  count(*) FILTER (len(p.marker_blocks) > 0 OR p.automatic >= 0 OR r.query_marker > 0) AS marked,
  count(*) FILTER (NOT r.prompt_estimated) AS with_usage,
  sum(r.prompt_tokens) FILTER (NOT r.prompt_estimated) AS reported_prompt_tokens
FROM requests r JOIN prompts p USING (trace_no, seq) WHERE p.rules_no = ?
GROUP BY r.model ORDER BY requests DESC, r.model
"""
_GAPS: Final = """
SELECT at_us - gap_us AS from_us, at_us AS until_us, gap_us FROM (
  SELECT at_us, at_us - lag(at_us) OVER (ORDER BY seq) AS gap_us FROM requests) WHERE gap_us > 0
ORDER BY gap_us DESC, at_us LIMIT ?
"""
# How long a session's request comes after the session's previous one: what decides which TTL can serve it.
_BANDS: Final = """
SELECT count(*) FILTER (gap <= 300e6) AS within_5m, count(*) FILTER (gap > 300e6 AND gap <= 3600e6) AS within_1h,
  count(*) FILTER (gap > 3600e6 AND gap <= 86400e6) AS within_24h, count(*) FILTER (gap > 86400e6) AS longer
FROM (SELECT at_us - lag(at_us) OVER (PARTITION BY principal, model, session ORDER BY seq) AS gap FROM requests)
"""


class BadLineSample:
    """The first bad lines of each reason, without their content, and how many more there were."""

    def __init__(self) -> None:
        self.first: list[BadLine] = []
        self.left_out: Counter[str] = Counter()
        self._kept: Counter[str] = Counter()

    def add(self, bad: BadLine) -> None:
        """Take note of a bad line."""
        self._kept[bad.reason] += 1
        if self._kept[bad.reason] > BAD_LINES_PER_REASON:
            self.left_out[bad.reason] += 1
        else:
            self.first.append(replace(bad, raw=b""))


@dataclass(slots=True)
class LogCheck:
    """files and models: one row each; gaps: the longest silences, µs; bands: gaps within a session by TTL tier."""

    files: list[Row]
    models: list[Row]
    gaps: list[Row]
    bands: Row
    bad_lines: BadLineSample
    facts: dict[str, Any]


def check_log(con: duckdb.DuckDBPyConnection, trace: PreparedTrace, bad_lines: BadLineSample) -> LogCheck:
    """Everything to say about a trace that was just prepared in a database of its own."""
    return LogCheck(
        files=_rows(con, _FILES, []),
        models=_rows(con, _MODELS, [_richest_rules(trace)]),
        gaps=_rows(con, _GAPS, [GAPS_SHOWN]),
        bands=_rows(con, _BANDS, [])[0],
        bad_lines=bad_lines,
        facts=trace.facts,
    )


def _richest_rules(trace: PreparedTrace) -> int:
    """The rule set that sees most blocks, and so most markers."""
    return max(range(len(trace.rules)), key=lambda n: (trace.rules[n].hash_tools, trace.rules[n].hash_tool_calls))


def _rows(con: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[Any]) -> list[Row]:
    cursor = con.execute(sql, parameters)
    names = [column[0] for column in cursor.description]
    return [
        {n: int(v) if n.endswith("_tokens") and v is not None else v for n, v in zip(names, row, strict=True)}
        for row in cursor.fetchall()
    ]
