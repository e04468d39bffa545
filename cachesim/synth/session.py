"""A conversation that grows turn by turn: each message is serialised once, bodies are joins of bytes."""

from __future__ import annotations

from random import Random
from typing import Final, NamedTuple

from cachesim.synth.apps import App
from cachesim.synth.pool import Pool, Text

MARKERS: Final = {
    "5m": b'{"type":"ephemeral"}',
    "1h": b'{"type":"ephemeral","ttl":"1h"}',
}
BAD_MARKERS: Final = (
    b'{"type":"ephemeral","ttl":"2h"}',
    b'{"type":"persistent"}',
    b'"ephemeral"',
    b'{"ttl":"5m"}',
)
MESSAGE_TOKENS: Final = 5
"""What a chat template adds to each message, in the estimate of prompt tokens."""


class Draft(NamedTuple):
    """A request body as the pieces to join, with the estimated tokens of its prompt."""

    parts: list[bytes]
    prompt_tokens: int


class Message(NamedTuple):
    """A user or tool message: everything before its content, and the text of its content."""

    head: bytes
    text: Text

    def plain(self) -> bytes:
        """The message with string content, as it stays in the history."""
        return self.head + b'"' + self.text[0] + b'"}'

    def marked(self, marker: bytes) -> bytes:
        """The message with its text in a one-part array that carries a marker."""
        return self.head + b'[{"type":"text","text":"' + self.text[0] + b'","cache_control":' + marker + b"}]}"


class Session:
    """One conversation of one application; `draft` is its next request, `answer` lets it grow."""

    def __init__(self, app: App, name: bytes, turns: int, rng: Random, pool: Pool, scale: float) -> None:
        self.app = app
        self.name = name
        self.turns_left = turns
        self._rng = rng
        self._pool = pool
        self._scale = scale
        self._history = b""
        self._tokens = app.system[1] + app.tools_tokens + MESSAGE_TOKENS
        self._calls = 0
        self._last = self._user(b"")

    def draft(self, clock: bytes) -> Draft:
        """The body of the next request; `clock` is the time some applications put into their system prompt."""
        rng, archetype = self._rng, self.app.archetype
        marker = MARKERS[archetype.ttl]
        if archetype.malformed and rng.random() < archetype.malformed:
            marker = rng.choice(BAD_MARKERS)
        return self._body(self._last, marker, clock)

    def fan_out(self, number: int, clock: bytes) -> Draft:
        """A sub-task sent in parallel: the same history, another last message, nothing added to the session."""
        task = self._pool.draw(self._rng, "prose", 500 * self._scale, b"Sub-task %d: " % number)
        return self._body(Message(b'{"role":"user","content":', task), MARKERS[self.app.archetype.ttl], clock)

    def answer(self) -> tuple[int, bool]:
        """Adds the model's reply and what follows it. Returns (completion tokens, whether a person answers next)."""
        self.turns_left -= 1
        self._remember(self._last.plain(), self._last.text[1])
        if self.app.tool_names and self._rng.random() < 0.8:
            return self._use_tools(), False
        reply = self._pool.draw(self._rng, "prose", 900 * self._scale)
        self._remember(b'{"role":"assistant","content":"' + reply[0] + b'"}', reply[1])
        self._last = self._user(b"%d. " % self.turns_left)
        return reply[1], True

    def _use_tools(self) -> int:
        """An assistant message with one to four calls, and a tool message for each."""
        rng, pool = self._rng, self._pool
        fan = 1 if rng.random() < 0.75 else rng.randrange(2, 5)
        calls, identities, tokens = [], [], 0
        for _ in range(fan):
            self._calls += 1
            identity = b"call_%b_%d" % (self.name, self._calls)
            arguments = b'{\\"path\\":\\"src/%08x.py\\",\\"limit\\":%d}' % (rng.getrandbits(32), rng.randrange(2000))
            function = b'{"name":"%b","arguments":"%b"}' % (rng.choice(self.app.tool_names), arguments)
            calls.append(b'{"id":"%b","type":"function","function":%b}' % (identity, function))
            identities.append(identity)
            tokens += 45
        said = pool.draw(rng, "prose", 250 * self._scale) if rng.random() < 0.6 else None
        content = b'"' + said[0] + b'"' if said else b"null"
        tokens += said[1] if said else 0
        self._remember(b'{"role":"assistant","content":%b,"tool_calls":[%b]}' % (content, b",".join(calls)), tokens)
        results = [self._result(identity, fan) for identity in identities]
        for message in results[:-1]:
            self._remember(message.plain(), message.text[1])
        self._last = results[-1]
        return tokens

    def _result(self, identity: bytes, fan: int) -> Message:
        rng = self._rng
        # Cubing a uniform number gives many short results and a few of five times the mean.
        size = self.app.archetype.text_bytes * self._scale * (0.3 + 2.8 * rng.random() ** 3) / fan**0.5
        text = self._pool.draw(rng, "result", size, b"[exit 0, %d ms]\\n" % rng.randrange(9, 9000))
        return Message(b'{"role":"tool","tool_call_id":"%b","content":' % identity, text)

    def _user(self, lead: bytes) -> Message:
        size = self.app.archetype.text_bytes * self._scale * (0.2 + self._rng.random())
        lead = b"%b(ref %08x) " % (lead, self._rng.getrandbits(32))
        return Message(b'{"role":"user","content":', self._pool.draw(self._rng, "prose", size, lead))

    def _remember(self, message: bytes, tokens: int) -> None:
        self._history += b"," + message
        self._tokens += tokens + MESSAGE_TOKENS

    def _body(self, last: Message, marker: bytes, clock: bytes) -> Draft:
        app, style = self.app, self.app.archetype.style
        mark_last = style in ("system_last", "last") or (style == "tools" and len(self._history) > 0)
        parts = [
            b'{"model":"' + app.model + b'","messages":[',
            self._system(marker if style in ("system", "system_last") else b"", clock),
            self._history,
            b"," + (last.marked(marker) if mark_last else last.plain()),
            b"]",
        ]
        if app.tools:
            tail = app.tools[-1][:-1] + b',"cache_control":' + marker + b"}" if style == "tools" else app.tools[-1]
            parts += [b',"tools":[', b"".join([tool + b"," for tool in app.tools[:-1]]), tail, b"]"]
        if style == "automatic":
            parts.append(b',"cache_control":' + marker)
        parts.append(b"," + app.parameters + b"}")
        return Draft(parts, self._tokens + last.text[1] + MESSAGE_TOKENS)

    def _system(self, marker: bytes, clock: bytes) -> bytes:
        """The system message: a string, or an array where a block is marked or a telemetry block goes before it."""
        archetype, text = self.app.archetype, self.app.system[0]
        if archetype.timestamp:
            text = b"Current time: " + clock + b"\\n" + text
        if not marker:
            return b'{"role":"system","content":"' + text + b'"}'
        block = b'{"type":"text","text":"' + text + b'","cache_control":' + marker + b"}"
        if archetype.telemetry:
            header = b"x-anthropic-billing-header: version=2.4.1; nonce=%08x;" % self._rng.getrandbits(32)
            block = b'{"type":"text","text":"' + header + b'"},' + block
        return b'{"role":"system","content":[' + block + b"]}"
