"""The hand-computed log of the end-to-end tests: fourteen requests, their prices, and what must come out.

Every word is one token. Prices per token: model m input 1, output 2; model n input 2, output 3; batch requests of m
input 0.5, output 1; of completion window 24h until March 2: 0.25 and 0.5, from then on 7 and 7.
Multipliers of m until March 2: write 1.25 / 2 / 2.5, read 0.1; from then on write 1.5 / 2 / 2.5, read 0.5. Floor 5.
Model n has no cache tariff.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, NamedTuple

from e2e_support import body, lines, text, usage, words

TARIFF = """
[[cache_tariff]]
model = "m"
write_5m = "1.25"
write_1h = "2"
write_24h = "2.5"
read = "0.1"
min_prefix_tokens = 5
valid_until = 2026-03-02T00:00:00Z
[[cache_tariff]]
model = "m"
write_5m = "1.5"
write_1h = "2"
write_24h = "2.5"
read = "0.5"
min_prefix_tokens = 5
valid_from = 2026-03-02T00:00:00Z
[[base_tariff]]
model = "m"
input_per_token = "1"
output_per_token = "2"
purpose = "realtime"
[[base_tariff]]
model = "m"
input_per_token = "0.5"
output_per_token = "1"
purpose = "batch"
[[base_tariff]]
model = "m"
input_per_token = "0.25"
output_per_token = "0.5"
purpose = "batch"
completion_window = "24h"
valid_until = 2026-03-02T00:00:00Z
[[base_tariff]]
model = "m"
input_per_token = "7"
output_per_token = "7"
purpose = "batch"
completion_window = "24h"
valid_from = 2026-03-02T00:00:00Z
[[base_tariff]]
model = "n"
input_per_token = "2"
output_per_token = "3"
purpose = "realtime"
"""
WIDE_TARIFF = TARIFF.replace('input_per_token = "1"', 'input_per_token = "999.00000000000000000001"', 1)
for factor, whole in (("1.25", "2"), ("1.5", "2"), ("2.5", "3"), ("0.1", "1"), ("0.5", "0")):
    WIDE_TARIFF = WIDE_TARIFF.replace(f'= "{factor}"', f'= "{whole}"')
"""For WIDE_LOG, sums of more than 28 significant digits: real-time input of m at 999 + 10⁻²⁰, whole multipliers."""

S, A, B = words("s", 10), words("a", 4), words("b", 4)
SYSTEM = ("system", text(S, "5m"))


def at(clock: str, day: int = 1) -> str:
    return f"2026-03-0{day}T{clock}Z"


WEB: dict[str, Any] = {"session": "s1", "tags": {"app": "web"}}
ALICE: dict[str, Any] = {"principal": "alice", "duration_ms": 1000}
BOB: dict[str, Any] = {"principal": "bob", "duration_ms": 1000}

RECORDS: list[dict[str, Any]] = [
    {"id": "r1", "at": at("22:00:00"), **ALICE, **WEB, "duration_ms": 10_000, "body": body(SYSTEM, ("user", A)),
     "usage": usage(16, 3)},
    {"id": "r2", "at": at("22:00:05"), **ALICE, **WEB, "body": body(SYSTEM, ("user", B)), "usage": usage(16, 1)},
    {"id": "r3", "at": at("22:01:00"), **ALICE, **WEB, "body": body(SYSTEM, ("user", text(A, "1h"))),
     "usage": usage(16, 2)},
    {"id": "r4", "at": at("22:01:00"), **BOB, "tags": {"app": "cli"}, "body": body(SYSTEM, ("user", A)),
     "usage": usage(16, 0)},
    {"id": "r5", "at": at("22:06:30"), **ALICE, "status": 500, "body": body(SYSTEM, ("user", A)),
     "usage": usage(16, 0)},
    {"id": "r6", "at": at("22:07:00"), **ALICE, **WEB, "success": True,
     "body": body(SYSTEM, ("user", A), ("assistant", words("c", 3)), ("user", text(words("d", 2), marked=True)))},
    {"id": "r7", "at": at("23:00:00"), **ALICE, "body": body(("system", text(S, "24h")), ("user", A)),
     "usage": usage(16, 1)},
    {"id": "r8", "at": at("00:00:00", 2), **ALICE, "body": body(SYSTEM, model="n"), "usage": usage(8, 1)},
    {"id": "r9", "at": at("00:10:00", 2), **ALICE, "purpose": "batch", "completion_window": "24h",
     "batch_created_at": at("12:00:00"), "body": body(SYSTEM, ("user", B)), "usage": usage(16, 4)},
    {"id": "r10", "at": at("00:10:30", 2), "duration_ms": 0, "body": body(SYSTEM), "usage": usage(5, 0)},
    {"id": "r11", "at": at("00:11:00", 2), **ALICE, "body": body(("user", text(words("x", 3), "5m"))),
     "usage": usage(7, 1)},
    {"id": "r12", "at": at("00:12:00", 2), **ALICE, "body": body(SYSTEM, ("user", text(A, "5m"))),
     "usage": usage(12, 1)},
    {"id": "r2", "at": at("00:13:00", 2), **BOB, "body": body(("user", words("e", 2))), "usage": usage(3, 0)},
    {"id": "r15", "at": at("00:14:00", 2), **BOB, "purpose": "batch", "body": body(("user", words("f", 3))),
     "usage": usage(4, 2)},
]  # fmt: skip
LOG = lines([*RECORDS, RECORDS[0]])  # the first line again, as after a restart of the capture
WIDE_LOG = lines({**r, "usage": usage(r["usage"]["prompt_tokens"] * 10**6, 0)} for r in RECORDS if r.get("usage"))
"""What reports usage, a million times the prompt tokens of it."""


class Expected(NamedTuple):
    """One request under one policy; raw: read and 5m creation before the billing rule, where they differ."""

    request: str
    outcome: str
    reason: str | None
    tier: str
    prompt: int
    read: int
    c5: int
    c1: int
    c24: int
    completion: int
    list: Decimal
    charged: Decimal
    committed: bool = True
    raw: tuple[int, int] | None = None


def exp(
    request: str,
    outcome: str,
    reason: str | None,
    tier: str,
    tokens: tuple[int, int, int, int, int, int],
    list_price: str,
    charged: str,
    **more: Any,
) -> Expected:
    return Expected(request, outcome, reason, tier, *tokens, Decimal(list_price), Decimal(charged), **more)


# fmt: off
NEW = [  # (prompt, read, 5m, 1h, 24h, completion), list, charged
    # Nothing cached: writes the system prompt. 16·1 + 3·2 = 22; 6·1 + 10·1.25 + 3·2 = 24.5
    exp("r1", "create", None, "5m", (16, 0, 10, 0, 0, 3), "22", "24.5"),
    # r1 is still being answered: writes it again. 16 + 1·2 = 18; 6 + 12.5 + 2 = 20.5
    exp("r2", "create", None, "5m", (16, 0, 10, 0, 0, 1), "18", "20.5"),
    # r1's commit came last: live until 22:05. Reads 10, writes 4 for 1h. 16 + 2·2 = 20; 2 + 10·0.1 + 4·2 + 4 = 15
    exp("r3", "read_and_create", None, "1h+5m", (16, 10, 0, 4, 0, 2), "20", "15"),
    # Another principal has another cache. 16; 6 + 12.5 = 18.5
    exp("r4", "create", None, "5m", (16, 0, 10, 0, 0, 0), "16", "18.5"),
    # r3's read had moved the end to 22:06, so 22:06:30 writes; but the answer is a 500: not billed, not stored
    exp("r5", "create", None, "5m", (16, 0, 10, 0, 0, 0), "0", "0", committed=False),
    # Walks back from block 3 to r3's 1h entry of 14 tokens; 3 + 2 new ones. No usage: the prompt is the local count 19.
    # 19; 14·0.1 + 5·1.25 = 7.65
    exp("r6", "read_and_create", None, "5m", (19, 14, 5, 0, 0, 0), "19", "7.65"),
    # 24h is not offered: HTTP 400
    exp("r7", "rejected", "bad_marker:tier_disabled", "none", (16, 0, 0, 0, 0, 1), "0", "0", committed=False),
    # No cache tariff: 8·2 + 1·3 = 19
    exp("r8", "inactive", "not_enabled", "none", (8, 0, 0, 0, 0, 1), "19", "19", committed=False),
    # Everything of March 1 has expired. A batch made on March 1 pays prices and multipliers of March 1:
    # 16·0.25 + 4·0.5 = 6; 6·0.25 + 10·0.25·1.25 + 2 = 6.625
    exp("r9", "create", None, "5m", (16, 0, 10, 0, 0, 4), "6", "6.625"),
    # Nobody's request: 5
    exp("r10", "inactive", "unscoped", "none", (5, 0, 0, 0, 0, 0), "5", "5", committed=False),
    # 3 tokens are below the floor of 5. 7 + 2 = 9
    exp("r11", "zero", "below_floor", "5m", (7, 0, 0, 0, 0, 1), "9", "9", committed=False),
    # Reads 10 and writes 4, but the log reports a prompt of 12: the read is cut to 8.
    # 12 + 2 = 14; 8·0.5 + 4·1.5 + 2 = 12
    exp("r12", "read_and_create", None, "5m", (12, 8, 4, 0, 0, 1), "14", "12", raw=(10, 4)),
    # 3 and 4·0.5 + 2·1 = 4: nothing marked
    exp("r2", "zero", "no_markers", "none", (3, 0, 0, 0, 0, 0), "3", "3", committed=False),
    exp("r15", "zero", "no_markers", "none", (4, 0, 0, 0, 0, 2), "4", "4", committed=False),
]
_CHANGED = {
    # 8.63 offers 24h: 16 + 2 = 18; 6 + 10·2.5 + 2 = 33
    "r7": exp("r7", "create", None, "24h", (16, 0, 0, 0, 10, 1), "18", "33"),
    # … which is still there for r9: 6; 6·0.25 + 10·0.25·0.1 + 2 = 3.75
    "r9": exp("r9", "read", None, "5m", (16, 10, 0, 0, 0, 4), "6", "3.75"),
    # … and for r12, whose split of 14 exceeds the prompt of 12: billed at list
    "r12": exp("r12", "read_and_create", None, "5m", (12, 0, 0, 0, 0, 1), "14", "14", raw=(10, 4)),
}
# fmt: on
OLD = [_CHANGED.get(e.request, e) for e in NEW]
