"""Golden cases about a sequence of requests: prepared like a log, replayed, each committed at its own time."""

from __future__ import annotations

import base64
from array import array
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from cachesim.conformance.bodies import WordCounter, difference, policy_of
from cachesim.core.canonical import JsonError
from cachesim.core.classify import Entry
from cachesim.core.gates import AS_CAPTURED, NO_PROMPT, REJECTED, Gates, Prompt
from cachesim.core.markers import TIER_NUMBER
from cachesim.core.policy import TIERS
from cachesim.index.memory import MemoryIndex
from cachesim.prepare.bodies import BodyReader, ReadBody
from cachesim.prepare.chains import Facts, Slots
from cachesim.prepare.nodes import Nodes, cumulate
from cachesim.prepare.uri import query_marker
from cachesim.replay import Classified, Lane, PreparedRequest
from cachesim.trace.times import parse_time


class _RawRequest(msgspec.Struct):
    body: msgspec.Raw = msgspec.Raw(b"")


class _RawCase(msgspec.Struct):
    requests: list[_RawRequest]


class Scenario:
    """One classify case: its bodies prepared, then replayed, each request committed at its own time."""

    def __init__(self, case: Mapping[str, Any], raw: bytes, old: bool) -> None:
        self.case = case
        self.counter = WordCounter()
        self.slots, self.facts, self.nodes = Slots(self.counter), Facts(), Nodes()
        self.policy = policy_of(case, old)
        self.reader = BodyReader([self.policy.body_rules], self.nodes, self.facts)
        self.scopes: dict[tuple[str, str, str], int] = {}
        bodies = msgspec.json.decode(raw, type=_RawCase).requests
        self.bodies = [self._read(request, body.body) for request, body in zip(case["requests"], bodies, strict=True)]

    def _read(self, request: Mapping[str, Any], raw: msgspec.Raw) -> ReadBody | None:
        encoded = request.get("body_b64")
        body = bytes(raw) if encoded is None else base64.b64decode(encoded)
        try:
            parts = self.reader.parts.take_apart(body)
        except JsonError:
            return None
        query = query_marker(request.get("query") or "") == 1
        return self.reader.read(parts, self.slots, 0, messages_api=False, query=query)

    def run(self) -> Iterator[tuple[Classified, dict[str, Any]]]:
        """Each request's classification and what the golden cases say of it."""
        tokens = [self.counter.count(slot) for slot in self.slots.by_node]
        cumulative = cumulate(self.nodes.parents, array("q", tokens))
        index = MemoryIndex()
        lane = Lane(Gates(self.policy, AS_CAPTURED, self.facts.all), self.nodes, [cumulative], index)
        for row in self.case.get("preload", []):
            self._preload(index, row)
        models = self.case["models"]
        for seq, request in enumerate(self.case["requests"]):
            models = request.get("set_models", models)
            body = self.bodies[seq]
            config = models.get(request["model"]) if request["model"] is not None else None
            prepared = self._prepare(seq, request, body, config)
            floor = None if config is None else config["min_prefix_tokens"]
            result = lane.arrive(prepared, _prompt(body), floor)
            yield result, self._describe(result)

    def _preload(self, index: MemoryIndex, row: Mapping[str, Any]) -> None:
        prefix = self.nodes.prefix_of(bytes.fromhex(row["hash"]))
        if prefix is not None:
            scope = self._scope(row["principal"], row["model"], row["tokenizer_version"])
            entry = Entry(parse_time(row["expires_at"]), row["tokens"], TIER_NUMBER[row["ttl"]], 0)
            index.put(scope, prefix, entry)

    def _scope(self, principal: str, model: str, version: str) -> int:
        return self.scopes.setdefault((principal, model, version), len(self.scopes))

    def _prepare(
        self,
        seq: int,
        request: Mapping[str, Any],
        body: ReadBody | None,
        config: Mapping[str, Any] | None,
    ) -> PreparedRequest:
        at_us = parse_time(request["at"])
        version = config["tokenizer_version"] if config else None
        principal, model = request["principal"], request["model"]
        scope = -1
        if principal is not None and model is not None and version is not None:
            scope = self._scope(principal, model, version)
        return PreparedRequest(
            seq=seq,
            at_us=at_us,
            done_us=at_us,
            succeeded=request["success"],
            served=request["success"],
            scope=scope,
            tokenizer=0 if version is not None else -1,
            principal=principal,
            model=model,
            body_state="ok" if body is not None else "unparseable",
            query_marker=query_marker(request.get("query") or ""),
        )

    def _describe(self, result: Classified) -> dict[str, Any]:
        active = result.outcome not in ("inactive", REJECTED)
        rejected = (result.reason or "").partition(":")[2] if result.outcome == REJECTED else None
        got: dict[str, Any] = {"active": active, "rejected": rejected, "committed": result.committed}
        split = result.classification
        got["read"] = split.read if split else 0
        for tier, name in enumerate(TIERS):
            got[f"creation_{name}"] = split.creation[tier] if split else 0
        digests = self.nodes.digests
        got["writes"] = [
            {"hash": digests[w.prefix].hex(), "tokens": w.tokens, "ttl": TIERS[w.tier], "expires_at": w.expires_us}
            for w in (split.writes if split else ())
        ]
        got["refresh"] = None
        for refresh in split.refreshes if split else ():
            got["refresh"] = {"hash": digests[refresh.prefix].hex(), "expires_at": refresh.expires_us}
        return got


def _prompt(body: ReadBody | None) -> Prompt:
    return NO_PROMPT if body is None else body.chains[0].prompt(body.automatic[0])


def run_classify(case: Mapping[str, Any], raw: bytes, *, old: bool) -> str | None:
    """None, or the first difference. `raw` is the case's own line: bodies are taken from it verbatim."""
    for number, (result, got) in enumerate(Scenario(case, raw, old).run()):
        expect = {key: value for key, value in case["expect"][number].items() if key not in ("skip", "degraded")}
        expect["writes"] = [{**write, "expires_at": parse_time(write["expires_at"])} for write in expect["writes"]]
        if expect["refresh"]:
            expect["refresh"] = {**expect["refresh"], "expires_at": parse_time(expect["refresh"]["expires_at"])}
        differs = difference(expect, got)
        skip = case["expect"][number].get("skip")
        if differs is None and skip is not None and result.reason != skip:
            differs = f"reason: expected {skip}, got {result.reason}"
        if differs:
            return f"request {number}: {differs}"
    return None
