"""A prepared trace as columns of numbers, read from the run database in a few statements."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cachesim.store.trace_reader import Scopes

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Flags = NDArray[np.bool_]

UNKNOWN: Final = -1
"""A token count that nobody knows."""


class Key(NamedTuple):
    """What many requests have in common and is not a number."""

    principal: str | None
    model: str | None
    tokenizer: int | None
    body_state: str
    query_marker: int
    purpose: str | None
    completion_window: str | None


@dataclass(slots=True)
class Requests:
    """Every request in replay order; times in µs UTC. key: position in `keys`; scope: number, -1 if it has none.

    prompt, local: tokens or UNKNOWN; served: it succeeded, or a 2xx answer began; estimated: nobody reports its prompt
    tokens; calibrated: its counts are scaled estimates.
    """

    keys: list[Key]
    scopes: list[tuple[str, str, int]]
    key: Ints
    scope: Ints
    at: Ints
    done: Ints
    priced_at: Ints
    succeeded: Flags
    served: Flags
    prompt: Ints
    local: Ints
    completion: Ints
    estimated: Flags
    calibrated: Flags

    def __len__(self) -> int:
        return len(self.at)

    @property
    def span_us(self) -> int:
        """From the first arrival to the last."""
        return int(self.at[-1] - self.at[0]) if len(self) else 0


@dataclass(slots=True)
class Forest:
    """Block boundaries, see `cachesim.prepare.nodes.Nodes`; cumulative[t]: tokens up to each node with tokenizer t."""

    parents: Ints
    prefixes: Ints
    kinds: Ints
    cumulative: list[Ints]
    _positions: dict[bool, Ints] = field(default_factory=dict)

    def positions(self, collapse: bool) -> Ints:
        """Walk-back positions from the first block to each node; with `collapse` a run of tool blocks is one."""
        import numpy as np

        from cachesim.core.blocks import TOOL_CALL, TOOL_RESULT

        if collapse not in self._positions:
            steps = np.ones(len(self.parents), np.int64)
            if collapse:
                parent_kind = np.where(self.parents >= 0, self.kinds[self.parents], -1)
                tool = (self.kinds == TOOL_CALL) | (self.kinds == TOOL_RESULT)
                steps[tool & (parent_kind == self.kinds)] = 0
            self._positions[collapse] = path_sums(self.parents, steps)
        return self._positions[collapse]


@dataclass(slots=True)
class Prompts:
    """The prepared prompts of all requests under one body rule set, see the table `prompts`.

    facts: position of the tuple of marker facts in `fact_tuples`; captured markers of request n stand in `blocks`
    from mark_from[n] to mark_from[n + 1].
    """

    end: Ints
    count: Ints
    automatic: Ints
    last_user: Ints
    last_system: Ints
    last_tool: Ints
    ingress_error: Flags
    facts: Ints
    fact_tuples: list[tuple[int, ...]]
    mark_from: Ints
    blocks: Ints


def path_sums(parents: Ints, values: Ints) -> Ints:
    """The sum of `values` from each node to its root, by pointer doubling: a few passes, whatever the depth.

    Parents [-1, 0, 1] and values [1, 1, 1] give [1, 2, 3].
    """
    total, above = values.copy(), parents.copy()
    while (above >= 0).any():
        known = above >= 0
        jump = above[known]
        total[known] = total[known] + total[jump]
        above[known] = above[jump]
    return total


def read_requests(con: duckdb.DuckDBPyConnection, trace_no: int) -> Requests:
    """The requests of a trace."""
    import numpy as np

    names = ", ".join(Key._fields).replace("tokenizer", "tokenizer_no")
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE sweep_keys AS SELECT *, row_number() OVER () - 1 AS key_no FROM "
        f"(SELECT {names} FROM requests WHERE trace_no = ? GROUP BY ALL ORDER BY min(seq))",
        [trace_no],
    )
    keys = [Key(*row[:-1]) for row in con.execute("SELECT * FROM sweep_keys ORDER BY key_no").fetchall()]
    same = " AND ".join(f"r.{name} IS NOT DISTINCT FROM k.{name}" for name in names.split(", "))
    found = _fetch(
        con,
        "SELECT k.key_no, r.at_us, r.done_us, coalesce(r.batch_created_us, r.at_us) AS priced_at_us, r.succeeded, "
        "r.succeeded OR r.status BETWEEN 200 AND 299 AS served, "
        "CASE WHEN r.prompt_tokens IS NULL THEN -1 ELSE greatest(r.prompt_tokens, 0) END AS prompt_tokens, "
        "coalesce(r.local_tokens, -1) AS local_tokens, r.completion_tokens, r.prompt_estimated, "
        "t.factor_e4 IS NOT NULL AS calibrated "
        f"FROM requests r JOIN sweep_keys k ON {same} "
        "LEFT JOIN trace_tokenizers t ON t.trace_no = r.trace_no AND t.tokenizer_no = r.tokenizer_no "
        "WHERE r.trace_no = ? ORDER BY r.seq",
        trace_no,
    )
    con.execute("DROP TABLE sweep_keys")
    scopes = Scopes()
    scope_of = [
        scopes.number(k.principal, k.model, k.tokenizer)
        if k.principal is not None and k.model is not None and k.tokenizer is not None
        else -1
        for k in keys
    ]
    key = found["key_no"].astype(np.int64)
    return Requests(
        keys=keys,
        scopes=scopes.all,
        key=key,
        scope=np.array(scope_of, np.int64)[key] if keys else key,
        at=found["at_us"],
        done=found["done_us"],
        priced_at=found["priced_at_us"],
        succeeded=found["succeeded"].astype(bool),
        served=found["served"].astype(bool),
        prompt=found["prompt_tokens"].astype(np.int64),
        local=found["local_tokens"].astype(np.int64),
        completion=found["completion_tokens"].astype(np.int64),
        estimated=found["prompt_estimated"].astype(bool),
        calibrated=found["calibrated"].astype(bool),
    )


def read_forest(con: duckdb.DuckDBPyConnection, trace_no: int, tokenizers: int) -> Forest:
    """The boundaries of a trace, without their digests."""
    import numpy as np

    nodes = _fetch(con, "SELECT parent, prefix, kind FROM nodes WHERE trace_no = ? ORDER BY node", trace_no)
    cumulative = [
        _fetch(
            con,
            "SELECT cumulative_tokens FROM v_node_tokens WHERE trace_no = ? AND tokenizer_no = ? ORDER BY node",
            trace_no,
            number,
        )["cumulative_tokens"]
        for number in range(tokenizers)
    ]
    parents, prefixes, kinds = (nodes[name].astype(np.int64) for name in ("parent", "prefix", "kind"))
    return Forest(parents, prefixes, kinds, cumulative)


def read_prompts(con: duckdb.DuckDBPyConnection, trace_no: int, rules_no: int) -> Prompts:
    """The prompts of all requests of a trace under one body rule set, in replay order."""
    import numpy as np

    own = "FROM prompts p WHERE trace_no = ? AND rules_no = ?"
    facts = con.execute(f"SELECT marker_facts {own} GROUP BY ALL ORDER BY min(seq)", [trace_no, rules_no]).fetchall()
    con.execute("CREATE OR REPLACE TEMP TABLE sweep_facts (fact_no INTEGER, marker_facts INTEGER[])")
    for number, (fact,) in enumerate(facts):
        con.execute("INSERT INTO sweep_facts VALUES (?, ?)", [number, fact])
    found = _fetch(
        con,
        "SELECT end_node, block_count, automatic, last_user, last_system, last_tool, ingress_error IS NOT NULL AS "
        "ingress_error, fact_no, len(marker_blocks) AS marks FROM prompts p JOIN sweep_facts USING (marker_facts) "
        "WHERE trace_no = ? AND rules_no = ? ORDER BY seq",
        trace_no,
        rules_no,
    )
    blocks = _fetch(
        con,
        "SELECT block FROM (SELECT seq, unnest(marker_blocks) AS block, unnest(range(len(marker_blocks))) AS place "
        f"{own}) ORDER BY seq, place",
        trace_no,
        rules_no,
    )["block"]
    con.execute("DROP TABLE sweep_facts")
    return Prompts(
        end=found["end_node"].astype(np.int64),
        count=found["block_count"].astype(np.int64),
        automatic=found["automatic"].astype(np.int64),
        last_user=found["last_user"].astype(np.int64),
        last_system=found["last_system"].astype(np.int64),
        last_tool=found["last_tool"].astype(np.int64),
        ingress_error=found["ingress_error"].astype(bool),
        facts=found["fact_no"].astype(np.int64),
        fact_tuples=[tuple(fact) for (fact,) in facts],
        mark_from=offsets(found["marks"].astype(np.int64)),
        blocks=blocks.astype(np.int64),
    )


def offsets(counts: Ints) -> Ints:
    """Where each of several lists begins in their concatenation, and where the last one ends: [2, 3] → [0, 2, 5]."""
    import numpy as np

    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def _fetch(con: duckdb.DuckDBPyConnection, sql: str, *parameters: Any) -> dict[str, Any]:
    """Columns without nulls as arrays."""
    return dict(con.execute(sql, list(parameters)).fetchnumpy())
