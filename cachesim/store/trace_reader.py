"""Reading prepared traces back: by digest, the forest as a whole, the requests in batches of replay order."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator, Sequence, Set
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cachesim.collector import no_collection
from cachesim.core.calibration import OFF, Calibration, ScaledCounts, factor_text
from cachesim.core.gates import Prompt
from cachesim.core.ledger import TariffSet
from cachesim.core.markers import MarkerFact
from cachesim.core.policy import BodyRules, Policy
from cachesim.prepare.tokenizers import UsedTokenizer
from cachesim.replay import PreparedRequest
from cachesim.store.traces import PreparedTrace, TraceInput

if TYPE_CHECKING:
    import duckdb

_CHUNK: Final = 16384


class TraceRow(NamedTuple):
    """One request as stored: for the replay, and what its bill depends on besides the split.

    calibrated: its counts are scaled estimates, see `cachesim.core.pricing.fit_split`.
    prompt_estimated: the prompt tokens are the local count.
    """

    request: PreparedRequest
    prompts: tuple[Prompt, ...]
    calibrated: bool
    prompt_tokens: int | None
    purpose: str | None
    completion_window: str | None
    priced_at_us: int
    prompt_estimated: bool
    completion_tokens: int


def find_trace(con: duckdb.DuckDBPyConnection, digest: str) -> int | None:
    """The number of the trace with that digest."""
    row = con.execute("SELECT trace_no FROM traces WHERE digest = ?", [digest]).fetchone()
    return None if row is None else int(row[0])


def has_input_of_size(con: duckdb.DuckDBPyConnection, size: int) -> bool:
    """Whether any stored trace read a file of that many bytes: only then is hashing it in advance worth while."""
    return con.execute("SELECT 1 FROM trace_inputs WHERE bytes = ? LIMIT 1", [size]).fetchone() is not None


def known_counts(con: duckdb.DuckDBPyConnection, version: str) -> dict[bytes, int]:
    """All counts remembered for a tokenizer version, by text digest."""
    return dict(con.execute("SELECT digest, tokens FROM token_counts WHERE version = ?", [version]).fetchall())


def trace_rules(con: duckdb.DuckDBPyConnection, trace_no: int) -> list[BodyRules]:
    """The body rule sets a stored trace was prepared for; position = rules_no."""
    row = con.execute("SELECT body_rules FROM traces WHERE trace_no = ?", [trace_no]).fetchone()
    assert row is not None
    return [_body_rules(rules) for rules in json.loads(row[0])]


def trace_inputs(con: duckdb.DuckDBPyConnection, trace_no: int) -> list[TraceInput]:
    """The files a stored trace was read from, in order."""
    rows = con.execute(
        "SELECT name, bytes, sha256, log_format, records, bad_lines FROM trace_inputs WHERE trace_no = ? "
        "ORDER BY file_no",
        [trace_no],
    ).fetchall()
    return [TraceInput(*row) for row in rows]


@no_collection()
def load_trace(con: duckdb.DuckDBPyConnection, trace_no: int) -> PreparedTrace:
    """A stored trace without its requests (see `trace_rows`)."""
    row = con.execute(
        "SELECT digest, requests, facts, body_rules, markers FROM traces WHERE trace_no = ?", [trace_no]
    ).fetchone()
    assert row is not None
    nodes = con.execute(
        "SELECT parent, prefix, kind, digest FROM nodes WHERE trace_no = ? ORDER BY node", [trace_no]
    ).fetchall()
    parents, prefixes, kinds, digests = zip(*nodes, strict=True) if nodes else ((), (), (), ())
    used = con.execute(
        f"SELECT source, version, exact, counts_no, {', '.join(Calibration._fields)} FROM trace_tokenizers "
        "WHERE trace_no = ? ORDER BY tokenizer_no",
        [trace_no],
    ).fetchall()
    tokenizers = [_tokenizer(*t) for t in used]
    counting = [number if t.counts_no is None else t.counts_no for number, t in enumerate(tokenizers)]
    counted = {number: _cumulative(con, trace_no, number) for number in dict.fromkeys(counting)}
    return PreparedTrace(
        trace_no=trace_no,
        digest=row[0],
        request_count=row[1],
        facts=json.loads(row[2]),
        rules=[_body_rules(r) for r in json.loads(row[3])],
        markers=[MarkerFact(*fact) for fact in json.loads(row[4])],
        tokenizers=tokenizers,
        parents=array("i", parents),
        prefixes=array("i", prefixes),
        kinds=array("B", kinds),
        digests=digests,
        cumulative=[
            counted[number] if t.calibration is None else ScaledCounts(counted[number], t.calibration.factor_e4)
            for number, t in zip(counting, tokenizers, strict=True)
        ],
    )


def _tokenizer(source: str, version: str, exact: bool, counts_no: int | None, *calibration: Any) -> UsedTokenizer:
    made = None if counts_no is None else Calibration(*calibration)
    return UsedTokenizer(source, version, exact, counts_no, made)


def _body_rules(rules: dict[str, Any]) -> BodyRules:
    return BodyRules(**{**rules, "telemetry_prefixes": tuple(rules["telemetry_prefixes"])})


def calibrations(con: duckdb.DuckDBPyConnection, trace_no: int) -> dict[str, str]:
    """How each model that was ever estimated is calibrated in a trace: the factor as text, or `off`.

    What it inherited itself is passed on, for models that do not occur in its log.
    """
    row = con.execute("SELECT facts FROM traces WHERE trace_no = ?", [trace_no]).fetchone()
    assert row is not None
    found: dict[str, str] = dict(json.loads(row[0]).get("reading", {}).get("inherited", {}))
    used = con.execute(
        "SELECT DISTINCT r.model, t.factor_e4 FROM requests r JOIN trace_tokenizers t USING (trace_no, tokenizer_no) "
        "WHERE trace_no = ? AND NOT t.exact AND r.model IS NOT NULL",
        [trace_no],
    ).fetchall()
    return found | {model: OFF if factor_e4 is None else factor_text(factor_e4) for model, factor_e4 in used}


def _cumulative(con: duckdb.DuckDBPyConnection, trace_no: int, tokenizer_no: int) -> array[int]:
    rows = con.execute(
        "SELECT cumulative_tokens FROM node_tokens WHERE trace_no = ? AND tokenizer_no = ? ORDER BY node",
        [trace_no, tokenizer_no],
    ).fetchall()
    return array("q", [tokens for (tokens,) in rows])


class Scopes:
    """Numbers the scopes of a trace: (principal, model, tokenizer number), in order of first arrival."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str, int]] = []
        self._numbers: dict[tuple[str, str, int], int] = {}

    def number(self, principal: str, model: str, tokenizer_no: int) -> int:
        key = (principal, model, tokenizer_no)
        found = self._numbers.get(key)
        if found is None:
            found = self._numbers[key] = len(self.all)
            self.all.append(key)
        return found


def trace_rows(
    con: duckdb.DuckDBPyConnection, trace: PreparedTrace, rules_nos: Sequence[int], scopes: Scopes
) -> Iterator[list[TraceRow]]:
    """The requests of a trace in replay order, in batches; prompts[i] is under rule set rules_nos[i]."""
    calibrated = {number for number, t in enumerate(trace.tokenizers) if t.calibration is not None}
    for start in range(0, trace.request_count, _CHUNK):
        window = [trace.trace_no, start, start + _CHUNK]
        requests = con.execute(
            "SELECT seq, at_us, done_us, succeeded, status, principal, model, tokenizer_no, body_state, query_marker, "
            "prompt_tokens, purpose, completion_window, coalesce(batch_created_us, at_us), prompt_estimated, "
            "completion_tokens FROM requests WHERE trace_no = ? AND seq >= ? AND seq < ? ORDER BY seq",
            window,
        ).fetchall()
        prompts = [_prompts(con, window, number) for number in rules_nos]
        yield [
            _row(row, own, scopes, calibrated) for row, own in zip(requests, zip(*prompts, strict=True), strict=True)
        ]


def single_rows(
    con: duckdb.DuckDBPyConnection,
    trace: PreparedTrace,
    policy: Policy,
    tariff: TariffSet,
    progress: Callable[[int], None],
    scopes: Scopes | None = None,
) -> Iterator[tuple[TraceRow, int | None]]:
    """The requests for one variant alone, in replay order: under the policy's body rules, with the floor in force.

    The floor is None where the model is not enabled; progress: told how many more requests are done; scopes: numbers
    them, for who must know their names.
    """
    for rows in trace_rows(con, trace, [trace.rules.index(policy.body_rules)], scopes or Scopes()):
        for row in rows:
            request = row.request
            yield row, tariff.gate(request.model, request.at_us) if request.model is not None else None
        progress(len(rows))


def _prompts(con: duckdb.DuckDBPyConnection, window: Sequence[int], rules_no: int) -> list[Prompt]:
    rows = con.execute(
        "SELECT end_node, block_count, marker_blocks, marker_facts, automatic, last_user, last_system, last_tool, "
        "ingress_error FROM prompts WHERE trace_no = ? AND seq >= ? AND seq < ? AND rules_no = ? ORDER BY seq",
        [*window, rules_no],
    ).fetchall()
    return [Prompt(end, count, tuple(blocks), tuple(facts), *rest) for end, count, blocks, facts, *rest in rows]


def _row(row: tuple[Any, ...], prompts: tuple[Prompt, ...], scopes: Scopes, calibrated: Set[int]) -> TraceRow:
    seq, at_us, done_us, succeeded, status, principal, model, tokenizer, state, query, tokens, *billing = row
    scope = -1
    if principal is not None and model is not None and tokenizer is not None:
        scope = scopes.number(principal, model, tokenizer)
    request = PreparedRequest(
        seq,
        at_us,
        done_us,
        succeeded,
        succeeded or 200 <= status < 300,
        scope,
        -1 if tokenizer is None else tokenizer,
        principal,
        model,
        state,
        query,
    )
    return TraceRow(request, prompts, tokenizer in calibrated, tokens, *billing)
