"""Golden cases about one body: canonical JSON, and parsing into blocks, hashes and breakpoints."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from cachesim.core.blocks import WHITE_SPACE
from cachesim.core.canonical import JsonError, canonical
from cachesim.core.markers import MarkerError, breakpoints
from cachesim.core.policy import PRESETS, TIERS, Policy
from cachesim.prepare.bodies import BodyReader
from cachesim.prepare.chains import Chain, Facts, Slots
from cachesim.prepare.nodes import Nodes

_WORD: Final = re.compile(f"[^{re.escape(WHITE_SPACE)}]+")


class WordCounter:
    """The tokenizer of the golden scenarios: words between Unicode white space."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def slot(self, text: str) -> int:
        self.texts.append(text)
        return len(self.texts) - 1

    def count(self, slot: int) -> int:
        return len(_WORD.findall(self.texts[slot]))


def run_canon(case: Mapping[str, Any]) -> str | None:
    try:
        got = {"canonical": canonical(base64.b64decode(case["body_b64"])).decode()}
    except JsonError:
        got = {"error": "json"}
    return difference(case["expect"], got)


def policy_of(case: Mapping[str, Any], old: bool) -> Policy:
    """The policy a case was run under; `old` is 8.63."""
    if old:
        return PRESETS["dwctl-8.63"]
    return replace(
        PRESETS["dwctl-10.13"],
        enabled_ttls=tuple(case["policy"]["enabled_ttls"]),
        default_ttl=case["policy"]["default_ttl"],
        telemetry_prefixes=tuple(case["telemetry"]["prefixes"]),
    )


def run_parse(case: Mapping[str, Any], *, old: bool) -> str | None:
    """None, or the first difference in blocks, hashes, breakpoints and both kinds of marker errors."""
    policy = policy_of(case, old)
    counter = WordCounter()
    slots, facts, nodes = Slots(counter), Facts(), Nodes()
    reader = BodyReader([policy.body_rules], nodes, facts)
    expect = dict(case["expect"])
    try:
        body = reader.read(
            reader.parts.take_apart(base64.b64decode(case["body_b64"])), slots, 0, messages_api=False, query=False
        )
    except JsonError:
        return difference(expect, {"error": "json"})
    chain, automatic = body.chains[0], body.automatic[0]
    path = _path(nodes, chain)
    markers = list(chain.marker_blocks), [facts.all[f] for f in chain.marker_facts]
    top = facts.all[automatic] if automatic >= 0 else None

    def resolve(read_on: bool) -> tuple[str | None, list[dict[str, Any]]]:
        try:
            found = breakpoints(*markers, top, chain.blocks, policy, read_on=read_on)
        except MarkerError as error:
            return str(error), []
        return None, [{"block_index": block, "ttl": TIERS[tier]} for block, tier in found]

    error, found = resolve(read_on=True)
    got: dict[str, Any] = {"error": error} if error else {}
    if not error:
        got["hashes"] = [nodes.digests[n].hex() for n in path]
        got["blocks"] = [counter.texts[slots.by_node[n]] for n in path]
        got["breakpoints"] = found
        expect["blocks"] = [block["text"] for block in expect.get("blocks", [])]
        expect["breakpoints"] = [{k: b[k] for k in ("block_index", "ttl")} for b in expect.get("breakpoints", [])]
    if not old:
        got["validate"] = resolve(read_on=False)[0]
    return difference(expect, got)


def _path(nodes: Nodes, chain: Chain) -> list[int]:
    """The boundaries of a prompt, first to last."""
    path: list[int] = []
    node = chain.node
    while node >= 0:
        path.append(node)
        node = nodes.parents[node]
    return path[::-1]


def difference(expected: Mapping[str, Any], got: Mapping[str, Any]) -> str | None:
    """The first member that differs, in words; members that only one side has count."""
    for key in [*expected, *(key for key in got if key not in expected)]:
        if expected.get(key) != got.get(key):
            return f"{key}: expected {_short(expected.get(key))}, got {_short(got.get(key))}"
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}…"
