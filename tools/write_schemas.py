"""Writes the JSON Schemas of all answers from the columns' definitions into docs/schemas, one file a command.

    python tools/write_schemas.py            # write them; refuses what would break a reader of this version
    python tools/write_schemas.py --check    # only say whether they are current; exit code 1 if not

A new command is an entry of ANSWERS. tests/e2e/test_schemas.py validates what every command answers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cachesim.cli import check, conformance, policies, runs, tariffs
from cachesim.fan_out import CATCHING
from cachesim.recommend import Objective
from cachesim.report import changes, compare, drift, gate, lives, losers, rehearsal, sensitivity, sweeps
from cachesim.report.columns import COLUMNS, SWEEP_COLUMNS, definition, kind_of
from cachesim.report.formats import SCHEMA
from cachesim.report.lists import REQUEST_COLUMNS
from cachesim.report.query import DIMENSIONS, SWEEP_DIMENSIONS, VARYING
from cachesim.tariffs import diff
from cachesim.tariffs.rows import COLUMNS as TARIFF_COLUMNS

FOLDER: Final = Path(__file__).resolve().parent.parent / "docs" / "schemas"
VERSION: Final = SCHEMA.rpartition("/")[2]
Schema = dict[str, Any]

# -- what values look like

COUNT: Final[Schema] = {"type": ["integer", "null"]}
NUMBER: Final[Schema] = {"type": ["number", "null"]}
TEXT: Final[Schema] = {"type": ["string", "null"]}
MONEY: Final[Schema] = {**TEXT, "pattern": r"^-?[0-9]+(\.[0-9]+)?$"}
TIME: Final[Schema] = {**TEXT, "format": "date-time"}
FLAG: Final[Schema] = {"type": ["boolean", "null"]}
NAME: Final[Schema] = {"type": "string"}
ANYTHING: Final[Schema] = {}
KINDS: Final[dict[str, Schema]] = {
    "text": TEXT, "count": COUNT, "tokens": COUNT, "rate": NUMBER, "points": NUMBER, "mean": NUMBER,
    "money": MONEY, "exact": MONEY, "time": TIME, "flag": FLAG,
}  # fmt: skip
"""How JSON gives the values of a column; null: unknown, not applicable, or a rate without a denominator."""


def one_of(*names: str) -> Schema:
    return {"enum": list(names)}


def several(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def keys(always: Mapping[str, Schema], sometimes: Mapping[str, Schema] | None = None) -> Schema:
    """An object with these keys."""
    return {"type": "object", "properties": {**always, **(sometimes or {})}, "required": list(always)}


def mapping(values: Schema) -> Schema:
    """An object whose keys are data."""
    return {"type": "object", "additionalProperties": values}


# -- what commands answer


@dataclass(frozen=True)
class Rows:
    """A form of rows. columns: always there; groups: there if asked for; tags: `tag:NAME` may be, too."""

    title: str
    columns: Sequence[str]
    groups: Sequence[str] = ()
    tags: bool = False
    of_a_request: bool = False


@dataclass(frozen=True)
class Answer:
    """A command's JSON. more, sometimes: further keys of the envelope; words: definitions that differ here."""

    command: str
    rows: Sequence[Rows]
    more: Mapping[str, Schema] = field(default_factory=dict)
    sometimes: Mapping[str, Schema] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)

    @property
    def file(self) -> str:
        return f"{self.command.replace(' ', '-')}.v{VERSION}.json"


_LEAD: Final = ("run", "policy", "tariff")
_FIGURES: Final = [column.name for column in COLUMNS]
_SWEPT: Final = [column.name for column in SWEEP_COLUMNS]
_OF_REQUESTS: Final = [name for name, _, _ in REQUEST_COLUMNS]
_RUNS_WORDS: Final = {"requests": "requests of the log, whatever became of them"}

_CHECKED: Final = {
    "files": several(
        keys({"name": NAME, "log_format": TEXT, "bytes": COUNT, "records": COUNT, "bad_lines": COUNT,
              "first_at": TIME, "last_at": TIME})
    ),
    "longest_gaps": several(keys({"from": TIME, "until": TIME, "gap_us": COUNT})),
    "session_gaps": keys({"within_5m": COUNT, "within_1h": COUNT, "within_24h": COUNT, "longer": COUNT}),
    "facts": mapping(ANYTHING),
    "bad_lines": several(keys({"file": NAME, "line": COUNT, "offset": COUNT, "reason": NAME})),
}  # fmt: skip
_RECOMMENDED: Final = keys(
    {"model": TEXT, "answer": one_of("refused", "keep", "change"), "why": NAME},
    {"missing": NAME, "floor_now": COUNT, "floor_best": COUNT, "equal_floors": {"type": ["array", "null"],
     "items": COUNT}, "charged_now": MONEY, "charged_best": MONEY, "token_hit_rate_now": NUMBER,
     "token_hit_rate_best": NUMBER, "promised": NUMBER, "confirmed": NUMBER, "deciding_first": COUNT,
     "deciding_rest": COUNT, "near_5_rate": NUMBER, "floors_tried": COUNT, "confidence": one_of("high", "medium")},
)  # fmt: skip
_TUNED: Final = {
    "lifetimes": several(
        keys({"model": TEXT, "ttl": NAME, "write_multiplier": MONEY, "read_multiplier": MONEY,
              "reads_to_pay_back": COUNT, "break_even_cacheable_hit_rate": NUMBER, "cacheable_hit_rate": NUMBER,
              "creation_tokens": COUNT})
    ),
    "tier_choices": several(
        keys({"model": TEXT, "short": NAME, "long": NAME, "limit": NUMBER, "measured": NUMBER, "pays": FLAG})
    ),
    "fan_outs": several(
        keys({"model": TEXT, "requests": COUNT, "missed_tokens": COUNT, "by_tools": COUNT,
              **{f"walk_back_for_{share}": COUNT for share in CATCHING}})
    ),
}  # fmt: skip

_MOVED: Final = {
    "sensitivity": {
        **several(keys({n: {**KINDS[kind_of(n)], "description": definition(n)} for n in sensitivity.TOTALS})),
        "description": "The run's first policy with local counts moved by −5 %, 0 and +5 %, per tariff set.",
    }
}

ANSWERS: Final = (
    Answer("replay", [Rows("by model", [*_LEAD, "model", *_FIGURES], VARYING)], _MOVED),
    Answer(
        "report",
        [
            Rows("groups of a replay", [*_LEAD, *_FIGURES], [*VARYING, *DIMENSIONS], tags=True),
            Rows("groups of a sweep", [*_LEAD, *_SWEPT], [*VARYING, *SWEEP_DIMENSIONS]),
            Rows("requests", [*_LEAD, *_OF_REQUESTS], VARYING, of_a_request=True),
            Rows("drift", drift.COLUMNS),
            Rows("counts moved", [*_LEAD, "model", *sensitivity.COLUMNS], VARYING),
        ],
        sometimes=_MOVED,
    ),
    Answer(
        "compare",
        [
            Rows("groups, three rows each", [*compare.LEAD, *compare.FIGURES], list(DIMENSIONS), tags=True),
            Rows("by class", changes.TRANSITION_COLUMNS),
            Rows("by request", changes.CHANGED_COLUMNS),
            Rows("by rule", rehearsal.STEP_COLUMNS),
        ],
    ),
    Answer(
        "tune",
        [Rows("grid points", sweeps.sweep_columns([]), SWEEP_DIMENSIONS)],
        {"objective": one_of(*Objective), "recommendations": several(_RECOMMENDED)},
        _TUNED,
    ),
    Answer(
        "index",
        [Rows("groups", [*_LEAD, *lives.FIGURES], lives.DIMENSIONS), Rows("entries", lives.ENTRY_COLUMNS)],
        sometimes={"at": TIME},
    ),
    Answer("losers", [Rows("cohorts", losers.COLUMNS)]),
    Answer("gate", [Rows("checks", gate.COLUMNS)], words={"check": "the limit's option, with underscores"}),
    Answer(
        "check",
        [Rows("models", check.COLUMNS)],
        _CHECKED,
        words={
            "requests": "requests of the model",
            "requests_failed": "requests without success",
            "reported_prompt_tokens": "reported prompt tokens",
        },
    ),
    Answer("runs", [Rows("runs", runs.COLUMNS)], words=_RUNS_WORDS),
    Answer("runs show", [Rows("the run", runs.COLUMNS)], words=_RUNS_WORDS),
    Answer("tariffs show", [Rows("tariffs", TARIFF_COLUMNS)], {"as_of": TIME}),
    Answer(
        "tariffs check",
        [Rows("findings", tariffs.CHECK_COLUMNS)],
        words={"requests": "requests of the log that it is about", "source": "file and line"},
    ),
    Answer("tariffs diff", [Rows("values that differ", diff.COLUMNS)], {"a": NAME, "b": NAME}),
    Answer("conformance", [Rows("all files", conformance.COLUMNS)], {"differences": several(NAME)}),
    Answer("policies", [Rows("rules", policies.COLUMNS)], words={"rule": "the rule, as --set names it"}),
)

_VARIANT: Final = keys(
    {"kind": one_of("policy", "bound"), "policy": NAME, "tariff": TEXT, "markers": NAME},
    {"rules": mapping(ANYTHING), "ttl": NAME},
)
_CALIBRATION: Final = {
    **keys(
        {"model": NAME, "factor": MONEY, "origin": one_of("fitted", "configured", "inherited"),
         "fitted_requests": COUNT, "checked_requests": COUNT, "residual_median": NUMBER, "residual_p95": NUMBER}
    ),
    "type": ["object", "null"],
    "description": "How the estimates of a model are scaled, and |estimate - reported| / reported on requests that the "
    "factor was not fitted to; null: counts as they are.",
}  # fmt: skip
RUN: Final = keys(
    {
        "run": NAME, "cachesim_version": NAME, "trace": NAME, "requests": COUNT,
        "inputs": several(keys({"name": NAME, "bytes": COUNT, "sha256": TEXT, "log_format": TEXT, "records": COUNT,
                                "bad_lines": COUNT})),
        "tokenizers": several(keys({"source": NAME, "version": NAME, "exact": FLAG, "calibration": _CALIBRATION})),
        "variants": several(_VARIANT),
    },
    {"options": mapping(ANYTHING)},
)  # fmt: skip
PROBLEMS: Final = {
    **mapping({"type": ["integer", "object"]}),
    "description": "Counts of what was wrong with the inputs, some by kind; of several runs that differ, by run.",
}


def schema(answer: Answer) -> Schema:
    """The JSON Schema of a command's answer, self-contained."""
    rows = [_row(form, answer.words) for form in answer.rows]
    envelope = {
        "schema": {"const": SCHEMA},
        "command": {"const": answer.command},
        "runs": {**several({"$ref": "#/$defs/run"}), "description": "What the answer rests on."},
        "by": {**several(NAME), "description": "The groups asked for."},
        "assumptions": several(keys({"code": NAME, "text": NAME})),
        "problems": PROBLEMS,
        **answer.more,
        "rows": several(rows[0] if len(rows) == 1 else {"anyOf": rows}),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:cachesim:{answer.file.removesuffix('.json')}",
        "title": f"cachesim {answer.command} --format json",
        "description": "Readers ignore keys that they do not know: new ones do not change the version.",
        **keys(envelope, answer.sometimes),
        "$defs": {"run": RUN},
    }


def _row(form: Rows, words: Mapping[str, str]) -> Schema:
    def column(name: str) -> Schema:
        text = words.get(name) or definition(name, of_a_request=form.of_a_request)
        return {**KINDS[kind_of(name)], "description": text}

    always, asked = ({name: column(name) for name in names} for names in (form.columns, form.groups))
    tags = {"patternProperties": {"^tag:": {**TEXT, "description": "the tag's value"}}} if form.tags else {}
    return {"title": form.title, **keys(always, asked), **tags}


def closed(part: Any) -> Any:
    """The schema without room for keys that it does not name: what this version of the program answers."""
    if isinstance(part, list):
        return [closed(one) for one in part]
    if not isinstance(part, dict):
        return part
    inner = {name: closed(one) for name, one in part.items()}
    return {"additionalProperties": False, **inner} if part.get("type") == "object" else inner


# -- what readers rely on


def breaks(old: Any, new: Any, at: str = "") -> Iterator[str]:
    """What a reader of `old` may stumble over in answers by `new`: keys gone or no longer sure, other values."""
    if isinstance(old, list) and old and isinstance(old[0], dict):
        forms = {form.get("title"): form for form in new if isinstance(form, dict)} if isinstance(new, list) else {}
        for form in old:
            yield from breaks(form, forms.get(form.get("title")), at)
        return
    if not isinstance(old, dict):
        return
    if not isinstance(new, dict):
        yield f"{at}: is gone"
        return
    for word in ("type", "enum"):
        if word in old and (more := _set(new.get(word)) - _set(old[word])):
            yield f"{at}: also {', '.join(sorted(map(str, more)))}"
    for word in ("const", "pattern", "format"):
        if word in old and new.get(word) != old[word]:
            yield f"{at}: another {word}"
    if lost := _set(old.get("required")) - _set(new.get("required")):
        yield f"{at}: no longer sure: {', '.join(sorted(lost))}"
    for word in ("properties", "patternProperties", "$defs"):
        for name, part in old.get(word, {}).items():
            yield from breaks(part, new.get(word, {}).get(name), f"{at}/{name}")
    for word in ("items", "anyOf", "additionalProperties"):
        if word in old:
            yield from breaks(old[word], new.get(word), at)


def _set(value: Any) -> set[Any]:
    return set() if value is None else set(value) if isinstance(value, list) else {value}


def text(answer: Answer) -> str:
    return json.dumps(schema(answer), indent=1, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Writes or checks the files; 1 if one is stale under --check, or would break its readers."""
    stale, broken = [], []
    for answer in ANSWERS:
        path = FOLDER / answer.file
        before = path.read_text(encoding="utf-8") if path.exists() else None
        if before == text(answer):
            continue
        stale.append(answer.file)
        broken += [f"{answer.file}{what}" for what in breaks(json.loads(before or "{}"), schema(answer))]
        if not broken and "--check" not in arguments:
            FOLDER.mkdir(parents=True, exist_ok=True)
            path.write_text(text(answer), encoding="utf-8")
    print(f"changed: {', '.join(stale) or 'nothing'}")
    if broken:
        print("readers of this version would break; make it the next version in cachesim/report/formats.py SCHEMA:")
        print("\n".join(broken))
    return 1 if broken or (stale and "--check" in arguments) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
