"""Prepared traces in the run database: staged while a log is read, put in replay order at the end."""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from cachesim.core.calibration import Calibration, ScaledCounts
from cachesim.core.markers import MarkerFact
from cachesim.core.model import BadLine
from cachesim.core.policy import DEFAULT_PRESET, PRESETS, BodyRules
from cachesim.prepare.chains import Facts
from cachesim.prepare.nodes import Nodes
from cachesim.prepare.tokenizers import Tokenizers, UsedTokenizer
from cachesim.store.calibrate import Choose, calibrate
from cachesim.store.db import insert_frame

if TYPE_CHECKING:
    import duckdb

_CHUNK: Final = 16384

_STAGING: Final = """
CREATE OR REPLACE TEMP TABLE staged_requests (
  row_no BIGINT, file_no INTEGER, line BIGINT, byte_offset BIGINT, fingerprint BIGINT, log_format VARCHAR, request VARCHAR,
  at_us BIGINT, done_us BIGINT, principal VARCHAR, model VARCHAR, session VARCHAR, tags VARCHAR, status INTEGER,
  success BOOLEAN, has_usage BOOLEAN, purpose VARCHAR, completion_window VARCHAR, batch_created_us BIGINT,
  reported_prompt_tokens BIGINT, completion_tokens BIGINT, recorded_read_tokens BIGINT, recorded_creation_5m_tokens BIGINT,
  recorded_creation_1h_tokens BIGINT, recorded_creation_24h_tokens BIGINT, recorded_cost DECIMAL(38,20), body_state VARCHAR,
  query_marker INTEGER, tokenizer_no INTEGER, messages INTEGER, tools INTEGER);
CREATE OR REPLACE TEMP TABLE staged_prompts (
  row_no BIGINT, rules_no INTEGER, end_node INTEGER, block_count INTEGER, marker_blocks INTEGER[], marker_facts INTEGER[],
  automatic INTEGER, last_user INTEGER, last_system INTEGER, last_tool INTEGER, ingress_error VARCHAR);
"""

# Byte-identical records count once, at their first place. The order is the replay's: arrival, file, line.
# A record's own time tells two records apart that only look alike; a made-up one differs between copies.
_ORDER: Final = """
CREATE OR REPLACE TEMP TABLE staged_order AS
SELECT row_no, row_number() OVER (ORDER BY at_us, file_no, line) - 1 AS seq FROM (
  SELECT row_no, at_us, file_no, line, row_number() OVER (PARTITION BY fingerprint, CASE WHEN $own_times THEN at_us END ORDER BY file_no, line) AS copy
  FROM staged_requests) WHERE copy = 1
"""

# The whole prompt is what the newest version sees of it, whatever policies are asked for.
_LOCAL: Final = """
CREATE OR REPLACE TEMP TABLE staged_local AS
SELECT r.row_no, coalesce(t.cumulative_tokens, 0) AS tokens
FROM staged_requests r JOIN staged_prompts p USING (row_no)
LEFT JOIN node_tokens t ON t.trace_no = $trace AND t.tokenizer_no = r.tokenizer_no AND t.node = p.end_node
WHERE r.body_state = 'ok' AND r.tokenizer_no IS NOT NULL AND p.rules_no = $rules AND p.ingress_error IS NULL
"""

_REQUESTS: Final = """
INSERT INTO requests BY NAME
SELECT $trace AS trace_no, o.seq, r.file_no, r.line, r.byte_offset, r.log_format, r.request, r.at_us, r.done_us, r.principal,
  r.model, r.session, r.tags, r.status,
  coalesce(r.success, r.status BETWEEN 200 AND 299 AND (r.has_usage OR NOT $any_usage)) AS succeeded,
  r.purpose, r.completion_window, r.batch_created_us,
  (l.tokens * coalesce(c.factor_e4, 10000) + 5000) // 10000 AS local_tokens,
  coalesce(r.reported_prompt_tokens, local_tokens) AS prompt_tokens, r.reported_prompt_tokens IS NULL AS prompt_estimated,
  coalesce(r.completion_tokens, 0) AS completion_tokens, r.recorded_read_tokens, r.recorded_creation_5m_tokens,
  r.recorded_creation_1h_tokens, r.recorded_creation_24h_tokens, r.recorded_cost, r.body_state, r.query_marker,
  coalesce(c.tokenizer_no, r.tokenizer_no) AS tokenizer_no, r.messages, r.tools
FROM staged_requests r JOIN staged_order o USING (row_no) LEFT JOIN staged_local l USING (row_no)
LEFT JOIN staged_calibrated c ON c.model = r.model AND r.tokenizer_no IS NOT NULL ORDER BY o.seq
"""

_PROMPTS: Final = """
INSERT INTO prompts BY NAME
SELECT $trace AS trace_no, o.seq, p.* EXCLUDE (row_no)
FROM staged_prompts p JOIN staged_order o USING (row_no) ORDER BY p.rules_no, o.seq
"""

# What the responses do not say, of requests that could have it.
_SILENT: Final = """
SELECT count(*) FILTER (q.succeeded), count(*) FILTER (q.succeeded AND r.completion_tokens IS NULL),
  count(*) FILTER (NOT q.succeeded AND r.success IS NULL AND r.status BETWEEN 200 AND 299),
  count(*) FILTER (q.succeeded AND q.prompt_estimated AND q.prompt_tokens IS NOT NULL)
FROM requests q JOIN staged_order o USING (seq) JOIN staged_requests r USING (row_no)
WHERE q.trace_no = $trace AND q.body_state <> 'not_cacheable'
"""


@dataclass(frozen=True, slots=True)
class TraceInput:
    """One file of a trace: its name on the command line, stored bytes, their SHA-256, and what was found in it."""

    name: str
    bytes: int
    sha256: str
    log_format: str | None
    records: int
    bad_lines: int


@dataclass(slots=True)
class PreparedTrace:
    """A prepared trace: the forest of boundaries in memory, the requests in the database.

    parents, prefixes, kinds, digests: see `cachesim.prepare.nodes.Nodes`; cumulative[t][n]: tokens up to boundary n
    with tokenizer t; markers: distinct marker facts; rules: the body rule sets it was prepared for.
    """

    trace_no: int
    digest: str
    request_count: int
    facts: dict[str, Any]
    rules: list[BodyRules]
    markers: list[MarkerFact]
    tokenizers: list[UsedTokenizer]
    parents: Sequence[int]
    prefixes: Sequence[int]
    kinds: Sequence[int]
    digests: Sequence[bytes]
    cumulative: list[Sequence[int]]

    def tokenizer_no(self, version: str, model: str) -> int | None:
        """The number of the tokenizer that counts `model` in that version.

        Factors of two models may be equal, and so their versions: a calibrated tokenizer is its model's alone.
        """
        for number, tokenizer in enumerate(self.tokenizers):
            if tokenizer.version == version and tokenizer.model in (None, model):
                return number
        return None


class Prepared(Protocol):
    """What is known of a log besides the rows that were staged. records: how many of them."""

    @property
    def nodes(self) -> Nodes: ...
    @property
    def facts(self) -> Facts: ...
    @property
    def rules(self) -> tuple[BodyRules, ...]: ...
    @property
    def records(self) -> int: ...


class TraceWriter:
    """Writes one trace inside the caller's transaction: `stage` while reading, then `finish`."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self._con = con
        row = con.execute("SELECT coalesce(max(trace_no), 0) + 1 FROM traces").fetchone()
        assert row is not None
        self.trace_no: int = row[0]
        con.execute(_STAGING)

    def stage(self, kind: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """Take a batch of `requests` or `prompts`, by column."""
        insert_frame(self._con, f"staged_{kind}", columns)

    def bad_lines(self, lines: Sequence[BadLine]) -> None:
        """Store where bad lines are and why, never what they say."""
        insert_frame(
            self._con,
            "bad_lines",
            {
                "trace_no": [self.trace_no] * len(lines),
                "file_no": [b.file_no for b in lines],
                "line": [b.line for b in lines],
                "byte_offset": [b.offset for b in lines],
                "reason": [b.reason for b in lines],
                "message": [b.message for b in lines],
                "digest": [b.digest for b in lines],
            },
        )

    def finish(
        self,
        digest: str,
        prepared: Prepared,
        counted: Tokenizers,
        inputs: Sequence[TraceInput],
        facts: dict[str, Any],
        choose: Choose,
    ) -> PreparedTrace:
        """Store everything that is known, calibrate, and put the requests in replay order."""
        nodes, con = prepared.nodes, self._con
        as_counted = counted.cumulative(nodes.parents)
        cumulative: list[Sequence[int]] = [*as_counted]
        tokenizers = list(counted.used)
        self._store_nodes(nodes, as_counted)
        self._store_counts(counted)
        parameters = {"trace": self.trace_no}
        whole = prepared.rules.index(PRESETS[DEFAULT_PRESET].body_rules)
        con.execute(_ORDER, {"own_times": facts["synthetic_times"] == 0})
        con.execute(_LOCAL, {**parameters, "rules": whole})
        calibrated = calibrate(con, tokenizers, choose)
        for tokenizer in calibrated.tokenizers:
            assert tokenizer.counts_no is not None
            assert tokenizer.calibration is not None
            cumulative.append(ScaledCounts(cumulative[tokenizer.counts_no], tokenizer.calibration.factor_e4))
        tokenizers += calibrated.tokenizers
        con.execute(_REQUESTS, {**parameters, "any_usage": facts["usage_reported"]})
        con.execute(_PROMPTS, parameters)
        facts = {**facts, **self._order_facts(prepared.records), **self._silent(), "not_calibrated": calibrated.left}
        self._store_head(digest, prepared, inputs, tokenizers, facts)
        con.execute("DROP TABLE staged_requests; DROP TABLE staged_prompts; DROP TABLE staged_order")
        con.execute("DROP TABLE staged_local; DROP TABLE staged_calibrated")
        return PreparedTrace(
            trace_no=self.trace_no,
            digest=digest,
            request_count=prepared.records - facts["duplicates"],
            facts=facts,
            rules=list(prepared.rules),
            markers=list(prepared.facts.all),
            tokenizers=tokenizers,
            parents=nodes.parents,
            prefixes=nodes.prefixes,
            kinds=nodes.kinds,
            digests=nodes.digests,
            cumulative=cumulative,
        )

    def _store_nodes(self, nodes: Nodes, cumulative: Sequence[array[int]]) -> None:
        for start in range(0, len(nodes), _CHUNK * 8):
            part = slice(start, start + _CHUNK * 8)
            count = len(nodes.digests[part])
            numbers = range(start, start + count)
            same = [self.trace_no] * count
            insert_frame(
                self._con,
                "nodes",
                {
                    "trace_no": same,
                    "node": numbers,
                    "parent": nodes.parents[part],
                    "prefix": nodes.prefixes[part],
                    "kind": nodes.kinds[part],
                    "digest": nodes.digests[part],
                },
            )
            for number, totals in enumerate(cumulative):
                columns: dict[str, Sequence[Any]] = {
                    "trace_no": same,
                    "tokenizer_no": [number] * count,
                    "node": numbers,
                }
                insert_frame(self._con, "node_tokens", {**columns, "cumulative_tokens": totals[part]})

    def _store_counts(self, counted: Tokenizers) -> None:
        for tokenizer, counter in zip(counted.used, counted.counters, strict=True):
            learned = list(counter.new_counts())
            columns: dict[str, Sequence[Any]] = {
                "version": [tokenizer.version] * len(learned),
                "digest": [digest for digest, _ in learned],
                "tokens": [tokens for _, tokens in learned],
            }
            insert_frame(self._con, "token_counts", columns)

    def _order_facts(self, records: int) -> dict[str, int]:
        row = self._con.execute(
            "SELECT count(*), count(DISTINCT request) FROM staged_requests JOIN staged_order USING (row_no)"
        ).fetchone()
        assert row is not None
        return {"duplicates": records - row[0], "repeated_ids": row[0] - row[1]}

    def _silent(self) -> dict[str, int]:
        row = self._con.execute(_SILENT, {"trace": self.trace_no}).fetchone()
        assert row is not None
        return dict(zip(("billed", "completion_unknown", "failed_without_usage", "prompt_counted"), row, strict=True))

    def _store_head(
        self,
        digest: str,
        prepared: Prepared,
        inputs: Sequence[TraceInput],
        tokenizers: Sequence[UsedTokenizer],
        facts: dict[str, Any],
    ) -> None:
        rules = json.dumps([asdict(r) for r in prepared.rules])
        row = [self.trace_no, digest, prepared.records - facts["duplicates"], json.dumps(facts, sort_keys=True), rules]
        self._con.execute("INSERT INTO traces VALUES (?, ?, ?, ?, ?, ?)", [*row, json.dumps(prepared.facts.all)])
        for number, i in enumerate(inputs):
            values = [self.trace_no, number, i.name, i.bytes, i.sha256, i.log_format, i.records, i.bad_lines]
            self._con.execute("INSERT INTO trace_inputs VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
        for number, t in enumerate(tokenizers):
            calibration = t.calibration or [None] * len(Calibration._fields)
            values = [self.trace_no, number, t.source, t.version, t.exact, t.counts_no, *calibration]
            self._con.execute(f"INSERT INTO trace_tokenizers VALUES ({', '.join('?' * len(values))})", values)
