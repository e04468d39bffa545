"""The forest of block boundaries shared by all prompts of a trace, grown one block at a time."""

from __future__ import annotations

from array import array
from collections.abc import Sequence


class Nodes:
    """Parallel sequences indexed by node number; parents always come before their children.

    parents: boundary one block earlier, -1 for a first block; prefixes: number that stands for the prefix hash;
    kinds: see `cachesim.core.blocks.KINDS`; digests: SHA-256 of the prefix.

    A hash names a boundary except where a client forges role names; such twins get nodes of their own that share
    the prefix number, since upstream's index knows only the hash.
    """

    def __init__(self) -> None:
        self.parents = array("i")
        self.prefixes = array("i")
        self.kinds = array("B")
        self.digests: list[bytes] = []
        self._by_digest: dict[bytes, int] = {}
        self._twins: dict[tuple[int, int, int], int] = {}

    def __len__(self) -> int:
        return len(self.digests)

    def child(self, parent: int, digest: bytes, kind: int) -> int:
        """The node closed by a block of `kind` after `parent`, whose prefix hash is `digest`."""
        new = len(self.digests)
        node = self._by_digest.setdefault(digest, new)
        if node == new:
            self.parents.append(parent)
            self.prefixes.append(node)
            self.kinds.append(kind)
            self.digests.append(digest)
        elif self.parents[node] != parent or self.kinds[node] != kind:
            node = self._twin(node, parent, kind, digest)
        return node

    def prefix_of(self, digest: bytes) -> int | None:
        """The prefix number of a hash, if any prompt of the trace has it."""
        return self._by_digest.get(digest)

    def _twin(self, prefix: int, parent: int, kind: int, digest: bytes) -> int:
        key = (prefix, parent, kind)
        node = self._twins.get(key)
        if node is None:
            node = self._twins[key] = len(self.digests)
            self.parents.append(parent)
            self.prefixes.append(prefix)
            self.kinds.append(kind)
            self.digests.append(digest)
        return node


def cumulate(parents: Sequence[int], tokens: Sequence[int]) -> array[int]:
    """Tokens up to and including each node, from the tokens of each node's own block.

    >>> cumulate([-1, 0, 0], [5, 2, 3]).tolist()
    [5, 7, 8]
    """
    totals: list[int] = []
    for parent, own in zip(parents, tokens, strict=True):
        totals.append(own + totals[parent] if parent >= 0 else own)
    return array("q", totals)
