"""What a request's URI says: which API it went to, and whether it asks for an automatic marker."""

from __future__ import annotations

from typing import Final

CHAT: Final = "chat"
MESSAGES: Final = "messages"
OTHER: Final = "other"

_QUERY_KEY: Final = "cacheBreakpoint="


def api_of(method: str, uri: str) -> str:
    """CHAT, MESSAGES (translated to chat first) or OTHER (never classified).

    >>> api_of("POST", "/v1/chat/completions?cacheBreakpoint=lastUserMessage")
    'chat'
    """
    path = uri.partition("?")[0]
    if method != "POST":
        return OTHER
    if path.endswith("/chat/completions"):
        return CHAT
    return MESSAGES if path.endswith("/messages") else OTHER


def query_marker(query: str) -> int:
    """0: no `cacheBreakpoint`; 1: `lastUserMessage`; 2: another value. The first occurrence counts, nothing is decoded.

    >>> query_marker("a=b&cacheBreakpoint=lastUserMessage&cacheBreakpoint=x")
    1
    """
    for pair in query.split("&"):
        if pair.startswith(_QUERY_KEY):
            return 1 if pair[len(_QUERY_KEY) :] == "lastUserMessage" else 2
    return 0
