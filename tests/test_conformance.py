"""Fidelity: every golden case of the real classifier, both versions, through the code that replays logs."""

import gzip
import json
from pathlib import Path

import pytest

from cachesim.conformance import run_case, run_files
from cachesim.errors import InputError, NothingUsable

GOLDEN = Path(__file__).parent.parent / "fixtures" / "golden"
CASES = {
    "canon": 1238,
    "parse_863": 1259,
    "parse_1013": 1448,
    "classify_863": 266,
    "classify_1013": 271,
    "classify_extra_863": 8,
    "classify_extra_1013": 8,
    "pricing": 2301,
    "pricing_863": 1258,
}


@pytest.mark.parametrize("name", CASES)
def test_every_golden_case_passes(name: str) -> None:
    result = run_files([str(GOLDEN / f"{name}.jsonl.gz")])
    assert result.differences == []
    assert result.failed == 0
    assert result.passed + result.skipped == CASES[name]
    assert result.skipped <= 2  # only forged serde_json internals (tag rawvalue)


@pytest.mark.parametrize(
    ("name", "member", "wrong"),
    [
        ("canon", "canonical", "x"),
        ("parse_1013", "hashes", ["00"]),
        ("classify_863", "read", 99999),
        ("pricing", "value", "99999"),
    ],
)
def test_a_wrong_expectation_is_noticed(name: str, member: str, wrong: object) -> None:
    """A runner that compares nothing would pass everything."""
    with gzip.open(GOLDEN / f"{name}.jsonl.gz") as lines:
        for line in lines:
            case = json.loads(line)
            expect = case["expect"][0] if isinstance(case["expect"], list) else case["expect"]
            if isinstance(expect, dict) and member in expect:
                expect[member] = wrong
                assert run_case(case, line) is not None
                return
    pytest.fail("no case has the member")


def test_files_that_are_no_golden_cases_are_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    with pytest.raises(NothingUsable):
        run_files([str(empty)])
    other = tmp_path / "other.jsonl"
    other.write_text('{"id": "canon/1"}\n')
    with pytest.raises(InputError, match=r"other\.jsonl:1: not a golden case"):
        run_files([str(other)])
    other.write_text('{"id": "what/1", "expect": {}}\n')
    with pytest.raises(InputError, match="unknown kind of case"):
        run_files([str(other)])
