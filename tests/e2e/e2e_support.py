"""What end-to-end tests build logs from, and what a command leaves behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import duckdb


@dataclass(frozen=True)
class Result:
    """What one command left behind."""

    code: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        assert self.code == 0, self.err
        return json.loads(self.out)

    def rows(self) -> list[dict[str, Any]]:
        return self.json()["rows"]


Cli = Callable[..., Result]
Connect = Callable[[], duckdb.DuckDBPyConnection]


def words(prefix: str, count: int) -> str:
    """`words("s", 3)` = "s1 s2 s3": three tokens for the tokenizer below."""
    return " ".join(f"{prefix}{i}" for i in range(1, count + 1))


def text(value: str, ttl: str | None = None, marked: bool = False) -> list[dict[str, Any]]:
    """One text part, marked if a tier is named (or `marked`, for a marker without tier)."""
    part: dict[str, Any] = {"type": "text", "text": value}
    if ttl or marked:
        part["cache_control"] = {"type": "ephemeral", **({"ttl": ttl} if ttl else {})}
    return [part]


def body(*messages: tuple[str, Any], model: str = "m") -> dict[str, Any]:
    return {"model": model, "messages": [{"role": role, "content": content} for role, content in messages]}


def usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def lines(records: Iterable[dict[str, Any]]) -> bytes:
    """One record a line."""
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)
