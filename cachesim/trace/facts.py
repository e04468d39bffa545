"""What was counted and assumed while a log was read, in the form in which it is kept."""

from __future__ import annotations

from collections import Counter
from typing import Any

from cachesim.trace.reader import ReadFacts


def as_json(facts: ReadFacts, reasons: Counter[str]) -> dict[str, Any]:
    """What was counted and assumed while reading, as JSON."""
    files = [
        {
            "name": f.name,
            "log_format": f.log_format,
            "records": f.records,
            "bad_lines": f.bad_lines,
            "first_at_us": f.first_at_us,
            "last_at_us": f.last_at_us,
            "unordered": f.out_of_order,
            "reversed": f.is_reversed,
            "answers": f.answers,
            "answered": f.answered,
        }
        for f in facts.files
    ]
    totals = {
        "filtered": sum(f.filtered for f in facts.files),
        "unordered": sum(f.out_of_order for f in facts.files),
        "without_duration": sum(f.without_duration for f in facts.files),
        "default_principal": sum(f.default_principal for f in facts.files),
        "unscoped": sum(f.unscoped for f in facts.files),
        "synthetic_times": sum(f.synthetic_times for f in facts.files),
        "unanswered": sum(f.unanswered for f in facts.files),
        "unmatched_answers": facts.unmatched_answers,
        "conflicting_answers": facts.conflicting_answers,
        "parted_principals": facts.parted_principals,
        "usage_reported": facts.usage_reported,
    }
    return {
        "files": files,
        "bad": dict(reasons),
        "left_out": dict(facts.left_out),
        "principal": facts.default_principal,
        **totals,
    }
