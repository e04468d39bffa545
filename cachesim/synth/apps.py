"""The applications that send generated traffic: who they belong to, their prompts, tools, markers and habits."""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Literal

from cachesim.synth.pool import Pool, Text, escape, estimate_tokens
from cachesim.synth.text import Writer

Style = Literal["none", "system", "system_last", "last", "tools", "automatic"]
"""Where an application puts its markers."""


@dataclass(frozen=True, slots=True)
class Archetype:
    """A kind of application. Sizes in bytes before scaling; chances per request.

    turns: fewest and most requests of a session; gaps: chances that a user waits under 5 minutes, up to 1 h, up to 8 h;
    fixed_size: the system prompt is not scaled, because its length around the floor is the point.
    """

    name: str
    weight: int
    style: Style
    ttl: str = "5m"
    system_bytes: int = 9000
    spread: float = 0.3
    tools: int = 0
    turns: tuple[int, int] = (1, 1)
    text_bytes: int = 1500
    gaps: tuple[int, int, int] = (65, 27, 8)
    timestamp: bool = False
    telemetry: bool = False
    malformed: float = 0.0
    fan_out: float = 0.0
    fixed_size: bool = False
    uri: bytes = b""
    purpose: bytes = b""


ARCHETYPES: Final = (
    Archetype("coder", 9, "system_last", system_bytes=7500, tools=12, turns=(5, 32), text_bytes=1700, fan_out=0.03),
    Archetype("refactor", 6, "automatic", system_bytes=5500, tools=8, turns=(5, 26), text_bytes=1800),
    Archetype("terminal", 6, "system_last", "1h", 8500, tools=12, turns=(4, 26), text_bytes=1700, telemetry=True),
    Archetype("analyst", 5, "tools", "1h", 5000, tools=9, turns=(4, 22), text_bytes=2300, gaps=(30, 45, 25)),
    Archetype("chat", 7, "last", system_bytes=2500, turns=(2, 20), text_bytes=1700, gaps=(70, 22, 8)),
    Archetype("scheduler", 4, "system_last", system_bytes=6500, tools=6, turns=(3, 18), timestamp=True),
    Archetype("bridge", 4, "none", system_bytes=5000, tools=7, turns=(3, 24), text_bytes=1900),
    Archetype("legacy", 3, "system_last", system_bytes=5000, turns=(3, 18), malformed=0.08),
    Archetype("triage", 36, "system", system_bytes=4100, fixed_size=True, text_bytes=600),
    Archetype("extract", 16, "last", system_bytes=3000, fixed_size=True, text_bytes=1800, purpose=b"batch"),
    Archetype(
        "notes", 4, "none", system_bytes=4000, turns=(2, 16), gaps=(40, 40, 20), uri=b"?cacheBreakpoint=lastUserMessage"
    ),
)
"""In the order they are dealt out to principals, the most typical first."""


@dataclass(frozen=True, slots=True)
class App:
    """One application of one principal: its archetype and everything that is the same in all its requests."""

    archetype: Archetype
    principal: bytes
    name: bytes
    model: bytes
    system: Text
    tools: tuple[bytes, ...]
    tools_tokens: int
    tool_names: tuple[bytes, ...]
    parameters: bytes


def make_apps(rng: Random, pool: Pool, scale: float, models: list[str], principals: list[str]) -> list[App]:
    """Every archetype dealt to two principals, so that each principal runs several applications of its own."""
    writer = Writer(rng)
    apps = []
    for turn in range(2):
        for number, archetype in enumerate(ARCHETYPES):
            # The shift makes the second round give each principal other archetypes than the first.
            principal = principals[(number + 3 * turn) % len(principals)]
            model = models[(number // 2 + turn) % len(models)]
            apps.append(_make_app(rng, writer, pool, scale, archetype, principal, model))
    return apps


def _make_app(
    rng: Random, writer: Writer, pool: Pool, scale: float, archetype: Archetype, principal: str, model: str
) -> App:
    spread = 1 + archetype.spread * (2 * rng.random() - 1)
    size = archetype.system_bytes * spread * (1.0 if archetype.fixed_size else scale)
    lead = escape(f"You are the {archetype.name} assistant of {principal} ({writer.uuid()}).\n\n")
    tools = [_tool(rng, writer) for _ in range(max(2, round(archetype.tools * scale)) if archetype.tools else 0)]
    texts = [json.dumps(tool, ensure_ascii=False, separators=(",", ":")) for tool in tools]
    settings: dict[str, Any] = {"temperature": rng.choice((0, 0.2, 1)), "max_tokens": rng.choice((1024, 4096, 8192))}
    if rng.random() < 0.7:
        settings["stream"] = True
    return App(
        archetype=archetype,
        principal=escape(principal),
        name=escape(f"{principal}-{archetype.name}"),
        model=escape(model),
        system=pool.draw(rng, "manual", size, lead),
        tools=tuple(text.encode() for text in texts),
        tools_tokens=sum(estimate_tokens(text) for text in texts) + 12 * bool(texts),
        tool_names=tuple(tool["function"]["name"].encode() for tool in tools),
        parameters=json.dumps(settings, separators=(",", ":"))[1:-1].encode(),
    )


def _tool(rng: Random, writer: Writer) -> dict[str, Any]:
    """A function definition in the chat-completions shape."""
    names = [writer.identifier() for _ in range(rng.randrange(1, 5))]
    properties = {
        name: {"type": rng.choice(("string", "integer", "boolean")), "description": writer.text("sentence")}
        for name in names
    }
    function = {
        "name": f"{writer.word('verbs')}_{writer.identifier()}",
        "description": " ".join(writer.text("sentence") for _ in range(rng.randrange(1, 5))),
        "parameters": {"type": "object", "properties": properties, "required": list(properties)[:2]},
    }
    return {"type": "function", "function": function}
