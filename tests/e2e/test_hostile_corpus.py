"""The corpus of bad logs: each ends as it should, costs only itself, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e_support import Cli
from hostile_corpus import CORPUS, FIRST

ENOUGH = 60


def test_the_corpus_is_large() -> None:
    assert len(CORPUS) >= ENOUGH


@pytest.mark.parametrize("name", CORPUS)
def test_a_bad_log_costs_only_what_is_bad(cli: Cli, tmp_path: Path, name: str) -> None:
    case = CORPUS[name]
    case.write(tmp_path)
    before = sorted(p.name for p in tmp_path.iterdir())
    result = cli("replay", *case.arguments, "--dry-run", "--format", "json")
    assert result.code == case.code, result.err
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert len(result.out + result.err) < 100_000 or case.requests  # no line of a million letters is quoted
    if case.code:
        assert result.out == ""
        assert result.err.startswith("cachesim: ")
        assert result.err.count("\n") == 1, result.err
        assert case.said in result.err
        return
    report = result.json()
    assert report["problems"].get("bad_line_reasons", {}) == dict(case.reasons)
    counted = report["runs"][0]["requests"]
    assert counted == case.requests if case.requests >= 0 else counted > 0
    for problem, count in case.problems.items():
        assert report["problems"][problem] == count
    (tmp_path / "good.jsonl").write_bytes(FIRST)
    assert cli("replay", "good.jsonl", "--dry-run").code == 0
