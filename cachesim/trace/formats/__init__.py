"""The log formats that cachesim reads: one module a format, one line here."""

from __future__ import annotations

from typing import Final

from cachesim.trace.formats import anthropic, capture, mini_swe_agent, openai_batch, recorded
from cachesim.trace.formats.base import Format

FORMATS: Final[dict[str, Format]] = {
    module.FORMAT.name: module.FORMAT for module in (capture, openai_batch, anthropic, recorded, mini_swe_agent)
}
"""By name, in the order in which detection tries them; their `detect` functions exclude each other."""

__all__ = ["FORMATS", "Format"]
