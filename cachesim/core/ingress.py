"""Messages API bodies in the chat-completions shape that upstream classifies: its ingress translation, piece by piece.

Upstream reads the body into typed structures before translating, so a wrong type anywhere is HTTP 400, here
IngressError, while unknown keys and unknown block types are dropped. Upstream prints and parses the result once more:
callers pass translated values through `canonical.renumber`.

>>> call = {"type": "tool_use", "id": "t1", "name": "ls", "input": {"path": "/", "all": True}}
>>> translate_message({"role": "assistant", "content": [call]}, rules)[0]["tool_calls"][0]["function"]
{'name': 'ls', 'arguments': '{"all":true,"path":"/"}'}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from cachesim.core.canonical import dumps
from cachesim.core.policy import BodyRules

Json: TypeAlias = Any
"""str, int, float, bool, None, list or dict."""

_U32_MAX: Final = 2**32 - 1


class IngressError(ValueError):
    """Upstream answers this request with HTTP 400. The message names the field and never quotes content."""


def check_request(request: Mapping[str, Json]) -> None:
    """Check everything of a Messages request besides its `messages`.

    After it, `translate_system(request["system"])` and `translate_tool` of each tool cannot fail.
    Raises IngressError.
    """
    if not _is_u32(request.get("max_tokens")):
        raise IngressError("max_tokens is missing or not a whole number of 32 bits")
    for name, is_valid in _OPTIONAL_FIELDS.items():
        if name in request and not is_valid(request[name]):
            raise IngressError(f"{name} has the wrong type")
    _check_system(request.get("system"))
    tools = request.get("tools")
    if tools is not None and type(tools) is not list:
        raise IngressError("tools is not an array")
    for tool in tools or ():
        _check_tool(tool)


def translate_system(value: Json, rules: BodyRules) -> list[dict[str, Json]]:
    """The top-level `system` as no or one system message. Raises IngressError.

    >>> translate_system("Be brief.", rules)
    [{'role': 'system', 'content': 'Be brief.'}]
    """
    _check_system(value)
    if type(value) is list:
        value = [_text_part(block) for block in value if block["type"] == "text"]
    return [{"role": "system", "content": value}] if value else []


def translate_message(message: Json, rules: BodyRules) -> list[dict[str, Json]]:
    """One element of `messages` as the chat messages it stands for: none, one or several, in order.

    Raises IngressError.
    """
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise IngressError("a message has no role")
    content = message.get("content")
    if not isinstance(content, str | list):
        raise IngressError("a message's content is neither a string nor an array")
    if isinstance(content, list):
        for block in content:
            _check_block(block)
    match message["role"]:
        case "user":
            return _user(content, rules)
        case "assistant":
            return [_assistant(content, rules)]
        case "system" if rules.ingress_system_in_place:
            return translate_system(content, rules)
    raise IngressError("a message's role is not one that the ingress accepts")


def translate_tool(tool: Json, rules: BodyRules) -> dict[str, Json]:
    """One element of `tools` as a function tool of name, description, schema and marker; all else is dropped.

    Raises IngressError.
    """
    _check_tool(tool)
    schema = tool.get("input_schema")
    function = {
        "name": tool["name"],
        "description": tool.get("description"),
        "parameters": {"type": "object"} if schema is None else schema,
    }
    return _marked({"type": "function", "function": function}, tool)


def translate_request(body: Mapping[str, Json], rules: BodyRules) -> dict[str, Json]:
    """A whole Messages body as the part of a chat-completions body that classification reads. Raises IngressError."""
    check_request(body)
    messages = body.get("messages", [])
    if type(messages) is not list:
        raise IngressError("messages is not an array")
    chat = translate_system(body.get("system"), rules)
    for message in messages:
        chat += translate_message(message, rules)
    translated: dict[str, Json] = {"model": body.get("model"), "messages": chat}
    if body.get("tools"):
        translated["tools"] = [translate_tool(tool, rules) for tool in body["tools"]]
    return _marked(translated, body if rules.ingress_top_level_marker else {})


def _user(content: str | list[Json], rules: BodyRules) -> list[dict[str, Json]]:
    if isinstance(content, str):
        return [{"role": "user", "content": content}]
    results: list[dict[str, Json]] = []
    parts: list[dict[str, Json]] = []
    for block in content:
        match block["type"]:
            case "text":
                parts.append(_text_part(block))
            case "image":
                url = {"url": _image_url(block["source"])}
                parts.append(_marked({"type": "image_url", "image_url": url}, block))
            case "tool_result":
                results.append(_tool_result(block, rules))
    return [*results, {"role": "user", "content": parts}] if parts else results


def _tool_result(block: dict[str, Json], rules: BodyRules) -> dict[str, Json]:
    content = block.get("content")
    if type(content) is list:
        texts = [item["text"] for item in content if type(item) is dict and type(item.get("text")) is str]
        content = "".join(texts)
    content = content or ""
    if rules.ingress_text_markers and block.get("cache_control") is not None:
        content = [_marked({"type": "text", "text": content}, block)]
    return {"role": "tool", "tool_call_id": block["tool_use_id"], "content": content}


def _assistant(content: str | list[Json], rules: BodyRules) -> dict[str, Json]:
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    texts = [block for block in blocks if block["type"] == "text"]
    text = "".join(block["text"] for block in texts)
    marked = [block for block in texts if block.get("cache_control") is not None]
    message: dict[str, Json] = {"role": "assistant", "content": text or None}
    if text and marked and rules.ingress_text_markers:
        message["content"] = [_marked({"type": "text", "text": text}, marked[-1])]
    calls = [_tool_call(block, rules) for block in blocks if block["type"] == "tool_use"]
    if calls:
        message["tool_calls"] = calls
    return message


def _tool_call(block: dict[str, Json], rules: BodyRules) -> dict[str, Json]:
    function = {"name": block["name"], "arguments": dumps(block["input"]).decode()}
    call = {"id": block["id"], "type": "function", "function": function}
    return _marked(call, block if rules.ingress_tool_use_markers else {})


def _text_part(block: dict[str, Json]) -> dict[str, Json]:
    return _marked({"type": "text", "text": block["text"]}, block)


def _image_url(source: dict[str, Json]) -> str:
    if source["type"] == "url":
        return str(source["url"])
    return f"data:{source['media_type']};base64,{source['data']}"


def _marked(value: dict[str, Json], source: Mapping[str, Json]) -> dict[str, Json]:
    """`value` with the marker of `source`, if it has one; a null is none."""
    marker = source.get("cache_control")
    if marker is not None:
        value["cache_control"] = marker
    return value


def _check_system(value: Json) -> None:
    if type(value) is list:
        for block in value:
            _check_block(block)
    elif value is not None and type(value) is not str:
        raise IngressError("system is neither a string nor an array")


def _check_block(block: Json) -> None:
    """Refuse a block that upstream's types refuse, wherever it stands: also one that is dropped later."""
    if type(block) is not dict or type(block.get("type")) is not str:
        raise IngressError("a content block has no type")
    kind = block["type"]
    _require_strings(block, _REQUIRED_STRINGS.get(kind, ()), f"a {kind} block")
    if kind == "tool_use" and "input" not in block:
        raise IngressError("a tool_use block has no input")
    if kind == "tool_result":
        if not isinstance(block.get("content"), str | list | None):
            raise IngressError("a tool_result's content is neither a string nor an array")
        if not isinstance(block.get("is_error"), bool | None):
            raise IngressError("a tool_result's is_error is not a boolean")
    if kind == "image":
        _check_image(block.get("source"))


def _check_image(source: Json) -> None:
    kind = source.get("type") if isinstance(source, dict) else None
    names = _IMAGE_SOURCES.get(kind) if isinstance(kind, str) else None
    if names is None:
        raise IngressError("an image block's source is neither base64 nor url")
    _require_strings(source, names, "an image source")


def _check_tool(tool: Json) -> None:
    if type(tool) is not dict:
        raise IngressError("a tool is not an object")
    _require_strings(tool, ("name",), "a tool")
    if not isinstance(tool.get("description"), str | None):
        raise IngressError("a tool's description is not a string")


def _require_strings(value: dict[str, Json], names: tuple[str, ...], where: str) -> None:
    for name in names:
        if type(value.get(name)) is not str:
            raise IngressError(f"{where} has no string {name}")


def _is_u32(value: Json) -> bool:
    return type(value) is int and 0 <= value <= _U32_MAX


def _is_number_or_null(value: Json) -> bool:
    return value is None or type(value) in (int, float)


def _is_strings_or_null(value: Json) -> bool:
    return value is None or (type(value) is list and all(type(item) is str for item in value))


_REQUIRED_STRINGS: Final[dict[str, tuple[str, ...]]] = {
    "text": ("text",),
    "tool_use": ("id", "name"),
    "tool_result": ("tool_use_id",),
}
_IMAGE_SOURCES: Final[dict[str, tuple[str, ...]]] = {"base64": ("media_type", "data"), "url": ("url",)}
_OPTIONAL_FIELDS: Final[dict[str, Callable[[Json], bool]]] = {
    "stream": lambda value: type(value) is bool,
    "temperature": _is_number_or_null,
    "top_p": _is_number_or_null,
    "top_k": lambda value: value is None or _is_u32(value),
    "stop_sequences": _is_strings_or_null,
}
