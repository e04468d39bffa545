"""Log records → rows of a prepared trace: the pass that touches every byte of a log, once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from cachesim.core.canonical import JsonError
from cachesim.core.gates import NO_PROMPT, Prompt
from cachesim.core.model import LogRecord, Usage
from cachesim.core.policy import BodyRules
from cachesim.prepare.bodies import BodyReader
from cachesim.prepare.chains import Facts
from cachesim.prepare.nodes import Nodes
from cachesim.prepare.tokenizers import Mapped
from cachesim.prepare.uri import MESSAGES, OTHER, api_of, query_marker

BATCH: Final = 4096
"""Rows handed on at a time."""

REQUEST_COLUMNS: Final = (
    "row_no", "file_no", "line", "byte_offset", "fingerprint", "log_format", "request", "at_us", "done_us", "principal",
    "model", "session", "tags", "status", "success", "has_usage", "purpose", "completion_window", "batch_created_us",
    "reported_prompt_tokens", "completion_tokens", "recorded_read_tokens", "recorded_creation_5m_tokens",
    "recorded_creation_1h_tokens", "recorded_creation_24h_tokens", "recorded_cost", "body_state", "query_marker",
    "tokenizer_no", "messages", "tools",
)  # fmt: skip
PROMPT_COLUMNS: Final = ("row_no", "rules_no", *Prompt._fields)

_NO_USAGE: Final = Usage()

Sink = Callable[[str, Mapping[str, Sequence[Any]]], None]
"""Takes a batch: `requests` or `prompts`, and its columns."""


_Read = tuple[Sequence[Prompt], str, str | None, int, int | None, int | None]
"""The prompts under each rule set, the state of the body, the model alias, its tokenizer's number (-1: unmapped), and
how many messages and tools the body has."""


class TokenizerOf(Protocol):
    """Whoever knows the tokenizer of a model alias."""

    def of(self, alias: str | None) -> Mapped: ...


class TraceBuilder:
    """Prepares records one at a time and hands finished rows to `sink` in batches.

    rules: distinct body rule sets to prepare for. Records come from the reader, which gave each its time and id.
    """

    def __init__(self, rules: Sequence[BodyRules], tokenizers: TokenizerOf, sink: Sink) -> None:
        self.nodes = Nodes()
        self.facts = Facts()
        self.tokenizers = tokenizers
        self.reader = BodyReader(rules, self.nodes, self.facts)
        self.rules = self.reader.rules
        self.records = 0
        self.assumed_5m = 0
        self._sink = sink
        self._requests: list[tuple[Any, ...]] = []
        self._prompts: list[tuple[Any, ...]] = []
        self._uris: dict[tuple[str, str], tuple[str, int]] = {}
        self._tags: dict[tuple[tuple[str, str], ...], str] = {(): "{}"}

    def add(self, record: LogRecord) -> None:
        """Prepare one record, which must have an arrival time. Raises CachesimError for want of a tokenizer."""
        at_us = record.at_us
        assert at_us is not None
        api, query = self._uri(record.method, record.uri)
        prompts, state, model, tokenizer_no, *sizes = self._read(record, api, query)
        row_no = self.records
        self.records += 1
        for rules_no, prompt in enumerate(prompts):
            self._prompts.append((row_no, rules_no, *prompt))
        usage = record.usage
        if usage is None:
            usage = _NO_USAGE
        elif usage.write_5m_assumed:
            self.assumed_5m += 1
        self._requests.append(
            (
                row_no,
                record.file_no,
                record.line,
                record.offset,
                record.digest,
                record.log_format,
                record.id,
                at_us,
                at_us + (record.duration_us or 0),
                record.principal,
                model,
                record.session,
                self._tag_text(record.tags),
                record.status,
                record.success,
                record.usage is not None,
                record.purpose,
                record.completion_window,
                record.batch_created_us,
                usage.prompt,
                usage.completion,
                usage.read,
                usage.write_5m,
                usage.write_1h,
                usage.write_24h,
                record.cost,
                state,
                query,
                None if tokenizer_no < 0 else tokenizer_no,
                *sizes,
            )
        )
        if len(self._requests) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Hand on what is left."""
        if self._requests:
            self._sink("requests", dict(zip(REQUEST_COLUMNS, zip(*self._requests, strict=True), strict=True)))
            self._sink("prompts", dict(zip(PROMPT_COLUMNS, zip(*self._prompts, strict=True), strict=True)))
            self._requests, self._prompts = [], []

    def _read(self, record: LogRecord, api: str, query: int) -> _Read:
        """What the body of a record holds."""
        nothing = [NO_PROMPT] * len(self.reader.rules)
        if api == OTHER or record.body is None:
            body = None if record.body is None else self.reader.parts.restored(record.body)
            model = record.model if record.model is not None else _model_of(body)
            number = self.tokenizers.of(model).number if model else -1
            return nothing, "not_cacheable" if api == OTHER else "unparseable", model, number, None, None
        try:
            parts = self.reader.parts.take_apart(record.body)
        except JsonError:
            return nothing, "unparseable", record.model, -1, None, None
        model = record.model if record.model is not None else parts.rest.model
        mapped = self.tokenizers.of(model)
        read = self.reader.read(parts, mapped.slots, mapped.number, messages_api=api == MESSAGES, query=query == 1)
        prompts = [chain.prompt(auto) for chain, auto in zip(read.chains, read.automatic, strict=True)]
        return prompts, "ok", model, mapped.number, parts.messages, len(parts.rest.tools)

    def _uri(self, method: str, uri: str) -> tuple[str, int]:
        known = self._uris.get((method, uri))
        if known is None:
            if len(self._uris) > BATCH:
                self._uris.clear()
            known = self._uris[method, uri] = (api_of(method, uri), query_marker(uri.partition("?")[2]))
        return known

    def _tag_text(self, tags: dict[str, str]) -> str:
        key = tuple(sorted(tags.items()))
        text = self._tags.get(key)
        if text is None:
            import orjson

            if len(self._tags) > BATCH:
                self._tags.clear()
            text = self._tags[key] = orjson.dumps(dict(key)).decode()
        return text


class _Model(msgspec.Struct):
    model: str | None = None


_decode_model: Final = msgspec.json.Decoder(_Model).decode


def _model_of(body: bytes | None) -> str | None:
    """The model that a body of an API which is not classified names, for grouping and pricing only."""
    try:
        return _decode_model(body or b"").model
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
