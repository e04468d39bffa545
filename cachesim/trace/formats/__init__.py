"""The log formats that cachesim reads: one module a format, one line here."""

from __future__ import annotations

from typing import Final

from cachesim.trace.formats import (
    anthropic,
    capture,
    dwctl,
    helicone,
    inspect,
    langfuse,
    litellm,
    litellm_spend_logs,
    mini_swe_agent,
    openai_batch,
    openhands,
    portkey,
    recorded,
)
from cachesim.trace.formats.base import Format

FORMATS: Final[dict[str, Format]] = {
    known.name: known
    for known in (
        capture.FORMAT,
        dwctl.FORMAT,
        openai_batch.FORMAT,
        anthropic.FORMAT,
        recorded.FORMAT,
        litellm.FORMAT,
        litellm_spend_logs.FORMAT,
        langfuse.FORMAT,
        helicone.FORMAT,
        portkey.FORMAT,
        openhands.FORMAT,
        mini_swe_agent.FORMAT,
        inspect.FORMAT,
        langfuse.TRACE,
    )
}
"""By name, in the order in which detection tries them; their `detect` functions exclude each other."""

__all__ = ["FORMATS", "Format"]
