"""What the logs before a continued run held, for its bound `ideal`: the policies go on, so their bound must."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cachesim.core.policy import BodyRules
from cachesim.replay import IdealBound, PreparedRequest, may_hold, path
from cachesim.store.trace_reader import Scopes, load_trace, trace_rows
from cachesim.store.traces import PreparedTrace

if TYPE_CHECKING:
    import duckdb


def inherit_prefixes(
    con: duckdb.DuckDBPyConnection,
    run_no: int,
    trace: PreparedTrace,
    rules: Sequence[BodyRules],
    scopes: Scopes,
    ideals: Sequence[IdealBound],
) -> None:
    """Tell each bound of `trace` what run `run_no` and the runs before it held under its body rules.

    rules: one set per bound; scopes: of `trace`. Runs deleted since are left out.
    """
    numbers = dict(zip(trace.digests, trace.prefixes, strict=True))
    ((first_us,),) = con.execute("SELECT min(at_us) FROM requests WHERE trace_no = ?", [trace.trace_no]).fetchall()
    for trace_no in _traces_up_to(con, run_no):
        earlier = load_trace(con, trace_no)
        here = [numbers.get(digest, -1) for digest in earlier.digests]
        tokenizers = [trace.tokenizer_no(tokenizer.version, tokenizer.model or "") for tokenizer in earlier.tokenizers]
        for ideal, own in zip(ideals, rules, strict=True):
            for request, nodes in _held(con, earlier, own, first_us):
                tokenizer = tokenizers[request.tokenizer]
                prefixes = [here[node] for node in nodes if here[node] >= 0]
                if tokenizer is not None and prefixes and request.principal is not None and request.model is not None:
                    scope = scopes.number(request.principal, request.model, tokenizer)
                    ideal.inherit(scope, prefixes, request.done_us)


def _held(
    con: duckdb.DuckDBPyConnection, trace: PreparedTrace, rules: BodyRules, first_us: int
) -> Iterator[tuple[PreparedRequest, list[int]]]:
    """The successful requests of a trace with their boundaries, without those of one that completed by `first_us`."""
    walked: dict[int, set[int]] = {}
    for rows in trace_rows(con, trace, [trace.rules.index(rules)], Scopes()):
        for row in rows:
            request, prompt = row.request, row.prompts[0]
            if request.succeeded and may_hold(request, prompt):
                known = walked.setdefault(request.scope, set()) if request.done_us <= first_us else set()
                yield request, path(trace, prompt.end_node, known)


def _traces_up_to(con: duckdb.DuckDBPyConnection, run_no: int) -> list[int]:
    """The traces of a run and of those it continued."""
    found: list[int] = []
    runs = con.execute("SELECT trace_no, options->>'continues' FROM runs WHERE run_no = ?", [run_no]).fetchall()
    while runs:
        trace_no, continues = runs[0]
        found.append(trace_no)
        runs = con.execute("SELECT trace_no, options->>'continues' FROM runs WHERE digest = ?", [continues]).fetchall()
    return found
