"""Random prepared traces for tests: a forest of boundaries and requests on it, without any log."""

from __future__ import annotations

import random
from array import array
from dataclasses import dataclass

from cachesim.core.blocks import KINDS
from cachesim.core.gates import Prompt
from cachesim.core.markers import MarkerFact
from cachesim.prepare.nodes import Nodes, cumulate
from cachesim.replay import PreparedRequest

FACTS = [
    MarkerFact("object", "ephemeral", "<missing>"),
    MarkerFact("object", "ephemeral", "5m"),
    MarkerFact("object", "ephemeral", "1h"),
    MarkerFact("object", "ephemeral", "24h"),
    MarkerFact("null", "<missing>", "<missing>"),
    MarkerFact("object", "other", "5m"),
]
MINUTE_US = 60_000_000
START_US = 1_000_000_000_000_000

End = tuple[int, int]
"""Where a prompt may end: a node and the number of blocks up to it."""


@dataclass
class RandomTrace:
    """tree, tokens and requests with their prompts; scopes are 0 … scopes-1."""

    tree: Nodes
    cumulative: list[array[int]]
    rows: list[tuple[PreparedRequest, Prompt, int | None]]


def random_trace(seed: int, requests: int = 120, scopes: int = 3) -> RandomTrace:
    """A deterministic random trace: growing histories, gaps around the TTLs, failures, long responses, ties."""
    chance = random.Random(seed)
    tree, tokens, ends = forest(chance)
    at_us = START_US
    rows = []
    for seq in range(requests):
        at_us += chance.choice([0, 0, 1, MINUTE_US, 5 * MINUTE_US, 5 * MINUTE_US - 1, 61 * MINUTE_US])
        end, depth = chance.choice(ends)
        blocks = sorted(chance.sample(range(depth), min(depth, chance.randrange(0, 5))))
        prompt = Prompt(
            end_node=end,
            block_count=depth,
            marker_blocks=tuple(blocks),
            marker_facts=tuple(chance.choice([0, 1, 1, 2, 2, 3, 4]) if chance.random() < 0.97 else 5 for _ in blocks),
            automatic=chance.choice([-1, -1, -1, 0, 2]),
            last_user=depth - 1,
            last_system=0,
            last_tool=-1,
            ingress_error=None,
        )
        succeeded = chance.random() < 0.9
        scope = chance.randrange(scopes)
        request = PreparedRequest(
            seq=seq,
            at_us=at_us,
            done_us=at_us + chance.choice([0, 0, 1, MINUTE_US, 6 * MINUTE_US]),
            succeeded=succeeded,
            served=succeeded or chance.random() < 0.5,
            scope=scope,
            tokenizer=0,
            principal=f"p{scope}",
            model="m",
            body_state="ok",
            query_marker=0,
        )
        rows.append((request, prompt, chance.choice([0, 100, 100, 1024]) if chance.random() < 0.95 else None))
    return RandomTrace(tree, [cumulate(tree.parents, array("q", tokens))], rows)


def forest(chance: random.Random) -> tuple[Nodes, list[int], list[End]]:
    """Forty histories that mostly grow out of one another: the tree, the tokens of each node's own block, the ends."""
    tree = Nodes()
    tokens: list[int] = []
    ends: list[End] = []
    for _ in range(40):
        node, depth = chance.choice(ends) if ends and chance.random() < 0.8 else (-1, 0)
        for _ in range(chance.randrange(1, 14)):
            digest = chance.randbytes(32)
            node = tree.child(node, digest, chance.randrange(len(KINDS)))
            depth += 1
            tokens.append(chance.choice([0, 1, 5, 40, 300]))
        ends.append((node, depth))
    return tree, tokens, ends
