"""A commented `cachesim.toml` to start from: what a log holds, with what could be set for it, all of it still off."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Final

from cachesim.assumed_prices import assumed_base_row
from cachesim.core.ledger import DEFAULT_CACHE_ROW, DEFAULT_PURPOSE, PURPOSES, BaseRow
from cachesim.core.policy import DEFAULT_PRESET, PRESETS
from cachesim.report.formats import clean, money_text
from cachesim.report.tables import counted
from cachesim.report.times import instant_text
from cachesim.tariffs.rows import per_mtok, shown_time

if TYPE_CHECKING:
    import duckdb

KEYS_SHOWN: Final = 1000
OTHERS_SHOWN: Final = 3
DIGEST: Final = "sha256:"
_COMMENT_AT: Final = 48
_FAMILY: Final = re.compile(r"[a-z]{3,}")
_WORDS: Final = re.compile(r"[a-z][a-z0-9.]*")
_MODELS: Final = """
SELECT model, count(*), sum(prompt_tokens) FILTER (NOT prompt_estimated) FROM requests
WHERE trace_no = ? AND model <> '' GROUP BY model ORDER BY count(*) DESC, model
"""
_SCOPES: Final = """
SELECT model, purpose, completion_window, count(*) FROM requests WHERE trace_no = ? AND model <> ''
GROUP BY ALL ORDER BY count(*) DESC, purpose NULLS FIRST, completion_window NULLS FIRST
"""
_PRINCIPALS: Final = """
SELECT principal, count(*) FROM requests WHERE trace_no = ? AND principal IS NOT NULL
GROUP BY principal ORDER BY count(*) DESC, principal
"""
_TOTALS: Final = """
SELECT count(*), min(at_us), max(at_us), count(*) FILTER (coalesce(model, '') = ''),
  count(*) FILTER (principal IS NULL) FROM requests WHERE trace_no = ?
"""
Scope = tuple[str, str | None]
"""Purpose and completion window."""


@dataclass(slots=True)
class ModelSeen:
    """A model of the log; prompt_tokens: as reported, None if nothing is; scopes: of its requests, with how many."""

    name: str
    requests: int
    prompt_tokens: int | None
    scopes: dict[Scope, int] = field(default_factory=dict)


@dataclass(slots=True)
class LogSeen:
    """What a log holds; principals: requests of each, by digest where the log holds keys, most requests first."""

    files: Sequence[str]
    requests: int
    first_us: int
    last_us: int
    without_model: int
    without_principal: int
    models: list[ModelSeen]
    principals: dict[str, int]


def look(con: duckdb.DuckDBPyConnection, trace_no: int, files: Sequence[str]) -> LogSeen:
    """What the prepared trace of `files` holds. Purposes that are not known count as realtime, as in pricing."""
    totals = con.execute(_TOTALS, [trace_no]).fetchone()
    assert totals is not None, "an aggregate has one row"
    requests, first_us, last_us, without_model, without_principal = totals
    models = [
        ModelSeen(name, count, None if tokens is None else int(tokens))
        for name, count, tokens in con.execute(_MODELS, [trace_no]).fetchall()
    ]
    by_name = {model.name: model for model in models}
    for name, purpose, window, count in con.execute(_SCOPES, [trace_no]).fetchall():
        scopes = by_name[name].scopes
        scope = (purpose if purpose in PURPOSES else DEFAULT_PURPOSE, window)
        scopes[scope] = scopes.get(scope, 0) + count
    principals = dict(con.execute(_PRINCIPALS, [trace_no]).fetchall())
    return LogSeen(files, requests, first_us, last_us, without_model, without_principal, models, principals)


def starter(
    seen: LogSeen, installed: Sequence[str], named: Mapping[str, str] | None = None, *, strict: bool = False
) -> str:
    """The text of a `cachesim.toml` for the log, the same for the same arguments.

    Everything is commented out, so that a replay with it gives what one without it gives. Uncommented as it stands it
    says what a replay assumes, but for tokenizers; a price that nobody knows has to be filled in first.
    installed: tokenizers that could be proposed; named, strict: `[principals]` and `strict_principals` of the
    configuration the log was read with, which stay in force.
    """
    settings = ["strict_principals = true"] if strict else []  # above every section, or it would belong to one
    sections = [
        [*_head(seen, kept=bool(named) or strict), *settings],
        _policy(),
        _tokenizers(seen, installed),
        _cache_tariffs(seen),
        _base_tariffs(seen),
        _principals(seen, named or {}),
    ]
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def proposed_tokenizers(model: str, installed: Iterable[str]) -> list[tuple[str, str]]:
    """The sources of `installed` that could count for `model`, the likeliest first, each with why.

    A hub repository of the same name is likely its own; one that only shares the family's name may be another version.
    """
    short = model.rsplit("/", 1)[-1].lower()
    family = _FAMILY.match(short)
    found = []
    for source in installed:
        last = source.rsplit("/", 1)[-1].lower()
        likeness = SequenceMatcher(None, short, last.partition(":")[2] or last).ratio()
        if source.startswith("hub:") and last.removeprefix("hub:") == short:
            found.append((2.0, source, "of the same name"))
        elif family and any(word.startswith(family[0]) for word in _WORDS.findall(source.partition(":")[2].lower())):
            found.append((likeness, source, "of the same family by its name only: make sure it is the model's"))
    return [(source, why) for _, source, why in sorted(found, key=lambda each: (-each[0], each[1]))]


def toml_string(text: str) -> str:
    """`text` as a TOML basic string: quotes, backslashes and everything that is not printable are escaped.

    >>> print(toml_string('a"b\\n\\u202e'))
    "a\\"b\\u000a\\u202e"
    """
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"


def _off(text: str, comment: str = "") -> str:
    """A line that is commented out; comments of the lines stand below each other."""
    line = f"# {text}"
    return f"{line:<{_COMMENT_AT}} # {comment}" if comment else line


def _head(seen: LogSeen, *, kept: bool) -> Iterator[str]:
    yield f"# A start for {', '.join(map(clean, seen.files))}, made by `cachesim init`."
    span = f"{instant_text(seen.first_us)} to {instant_text(seen.last_us)}"
    yield f"# {counted('request', seen.requests)} of {counted('model', len(seen.models))}, {span}."
    if seen.without_model:
        yield f"# {counted('request', seen.without_model)} of them without a model: nothing can be set for those."
    yield "#"
    if kept:
        yield "# Only the principals are in force, as they were: all else is as in a replay without this file."
    else:
        yield "# Nothing here is in force yet: a replay with this file gives what a replay without it gives."
    yield '# Take out the "# " before a line to set it. `cachesim tariffs check` says what is wrong with tariffs.'


def _policy() -> Iterator[str]:
    yield "# --- The rules of the cache (`cachesim policies` explains them) ---"
    yield _off("[policy]")
    yield _off(f"preset = {toml_string(DEFAULT_PRESET)}", f"there are {', '.join(PRESETS)}")


def _tokenizers(seen: LogSeen, installed: Sequence[str]) -> Iterator[str]:
    yield "# --- What counts the tokens of each model; without one, the embedded tokenizer estimates them ---"
    for model in seen.models:
        reported = "" if model.prompt_tokens is None else f", {model.prompt_tokens:,} prompt tokens reported"
        # A name in [models] is also a pattern; this one means itself only.
        yield _off(
            f"[models.{toml_string(glob.escape(model.name))}]", f"{counted('request', model.requests)}{reported}"
        )
        found = proposed_tokenizers(model.name, installed)
        if not found:
            yield _off('tokenizer = "default"', "none found here; a file, a directory or hub:org/name can stand here")
        for source, why in found[:1]:
            yield _off(f"tokenizer = {toml_string(source)}", why)
        others = [clean(source) for source, _ in found[1 : 1 + OTHERS_SHOWN]]
        if others:
            yield f"#   or {', '.join(others)}"


def _cache_tariffs(seen: LogSeen) -> Iterator[str]:
    usual = DEFAULT_CACHE_ROW
    yield "# --- Cache tariffs: factors on the input price. These are the usual ones, assumed while there are none. ---"
    yield "# --- One that is in force switches caching off for every model that has none. ---"
    factors = {"write_5m": usual.write_5m, "write_1h": usual.write_1h, "write_24h": usual.write_24h, "read": usual.read}
    for model in seen.models:
        yield _off("[[cache_tariff]]")
        yield _off(f"model = {toml_string(model.name)}", counted("request", model.requests))
        for key, factor in factors.items():
            yield _off(f'{key} = "{money_text(factor)}"')
        yield _off(f"min_prefix_tokens = {usual.min_prefix_tokens}")


def _base_tariffs(seen: LogSeen) -> Iterator[str]:
    yield "# --- Base tariffs: money per million tokens. valid_from and valid_until are optional times. ---"
    for model in seen.models:
        row = assumed_base_row(model.name, seen.last_us)
        # Nothing is no price: a line that is uncommented before it is filled in must not pass for free of charge.
        prices = ("", "") if row is None else (_per_mtok(row.input_price), _per_mtok(row.output_price))
        known = "no price is known: fill it in" if row is None else f"assumed from {clean(row.source)}{_held(row)}"
        for (purpose, window), count in _rows_to_fill(model).items():
            yield _off("[[base_tariff]]")
            yield _off(f"model = {toml_string(model.name)}", counted("request", count))
            yield _off(f'input_per_mtok = "{prices[0]}"', known)
            yield _off(f'output_per_mtok = "{prices[1]}"')
            yield _off(f'purpose = "{purpose}"')
            if window is not None:
                yield _off(f"completion_window = {toml_string(window)}")


def _held(row: BaseRow) -> str:
    """When the price changes, if it does."""
    times = (("from", shown_time(row.valid_from_us)), ("until", shown_time(row.valid_until_us)))
    told = [f"{word} {instant_text(at_us)}" for word, at_us in times if at_us is not None]
    return f", {' '.join(told)} only" if told else ""


def _per_mtok(price: Decimal) -> str:
    return money_text(per_mtok(price))


def _rows_to_fill(model: ModelSeen) -> dict[Scope, int]:
    """The scopes of the model's requests, realtime without a window first: it prices whatever has no row of its own."""
    general = (DEFAULT_PURPOSE, None)
    return {general: model.scopes.get(general, 0)} | model.scopes


def _principals(seen: LogSeen, named: Mapping[str, str]) -> Iterator[str]:
    yield "# --- Names for keys: keys of one name share a cache and a bill, a key without one is its own principal ---"
    digests = [principal for principal in seen.principals if principal.startswith(DIGEST)]
    if own := len(seen.principals) - len(digests):
        yield f"# {counted('principal', own)} of the log: known by name, nothing to set."
    if seen.without_principal:
        count = counted("request", seen.without_principal)
        yield f"# {count} without a principal: not cached, unless --principal names one."
    unnamed = [digest for digest in digests if digest not in named]
    if named or unnamed:
        yield "[principals]" if named else _off("[principals]")
    for digest, name in sorted(named.items()):
        count = counted("request", seen.principals.get(digest, 0))
        yield f"{toml_string(digest)} = {toml_string(name)}  # {count}"
    for number, digest in enumerate(unnamed[:KEYS_SHOWN], start=1):
        yield _off(f'{toml_string(digest)} = "key-{number}"', counted("request", seen.principals[digest]))
    if len(unnamed) > KEYS_SHOWN:
        yield f"# … and {len(unnamed) - KEYS_SHOWN:,} keys with fewer requests"
