"""The accelerator: the same counts as tokenizers, or none at all."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachesim.config import load_config
from cachesim.counting import accelerator as accelerating
from cachesim.counting.accelerator import Accelerated, CountsDiffer, load_accelerated
from cachesim.counting.resolve import LoadedTokenizer, load_tokenizer
from cachesim.pipeline import Preparation, body_rule_sets, prepare
from cachesim.store.db import open_database
from cachesim.synth import write
from cachesim.trace.open import find_sources
from cachesim.trace.reader import ReadOptions

DEFAULT = load_tokenizer("default")
Count = Callable[[str], int]


class Fake:
    """Stands for fastokens: counts as tokenizers does, or as `wrong` says."""

    def __init__(self, wrong: Count | None = None) -> None:
        self._wrong = wrong

    def no_truncation(self) -> None: ...

    def no_padding(self) -> None: ...

    def encode_batch_flat(self, texts: Sequence[str], add_special_tokens: bool) -> tuple[bytes, bytes]:
        counts = DEFAULT.count_batch(texts) if self._wrong is None else list(map(self._wrong, texts))
        ends = array("Q", [0])
        for count in counts:
            ends.append(ends[-1] + count)
        return b"", ends.tobytes()


def install(monkeypatch: pytest.MonkeyPatch, wrong: Count | None = None) -> None:
    """Have the fake found as the package."""
    module = ModuleType("fastokens")
    module.Tokenizer = type("Tokenizer", (), {"from_json_str": staticmethod(lambda text: Fake(wrong))})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fastokens", module)
    for name in ("cachesim.counting.accelerator", "cachesim.pipeline"):
        monkeypatch.setattr(f"{name}.accelerator", lambda: "fastokens 0")


def counted(text: str) -> int:
    return DEFAULT.count_batch([text])[0]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    with path.open("wb") as file:
        write(file, seed=3, requests=30)
    return path


def prepared(log: Path, *, accelerate: bool) -> tuple[list[Any], list[str], str | None]:
    """Tokens of every node, remarks, and the accelerator that the trace names."""
    remarks: list[str] = []
    with open_database(":memory:") as con:
        job = Preparation(find_sources([str(log)])[0], ReadOptions(), load_config([]), body_rule_sets([]))
        job.accelerate, job.on_remark = accelerate, remarks.append
        trace = prepare(con, job)
        return con.execute("SELECT * FROM node_tokens ORDER BY ALL").fetchall(), remarks, trace.facts["accelerator"]


def test_counts_are_those_of_tokenizers(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    plain = prepared(log, accelerate=False)
    assert plain[1:] == ([], None)
    assert prepared(log, accelerate=True) == (plain[0], [], "fastokens 0")


def test_one_that_fails_the_first_texts_is_not_used(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, lambda text: counted(text) + ("中" in text))
    tokens, remarks, _ = prepared(log, accelerate=True)
    assert remarks == ["fastokens 0: it counts texts differently for default; tokenizers counts instead"]
    assert tokens == prepared(log, accelerate=False)[0]


def test_a_difference_on_the_way_discards_all_its_counts(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = 0

    def late(text: str) -> int:
        nonlocal seen
        seen += 1
        return counted(text) + (seen > len(accelerating._PROBES) + 3)

    install(monkeypatch, late)
    told: list[str] = []
    log.write_bytes(b"not json\n" + log.read_bytes())
    with open_database(":memory:") as con:
        job = Preparation(find_sources([str(log)])[0], ReadOptions(), load_config([]), body_rule_sets([]))
        job.on_remark, job.on_bad_line = told.append, lambda line: told.append(line.reason)
        trace = prepare(con, job)
        assert con.execute("SELECT * FROM node_tokens ORDER BY ALL").fetchall() == prepared(log, accelerate=False)[0]
    assert told == [
        "not_json",
        "token counting with default: fastokens 0 counts a text differently than tokenizers do; count without it "
        "(--no-accelerator); done now, from the start",
    ]
    assert trace.facts["accelerator"] is None


def test_texts_with_new_characters_are_checked_first() -> None:
    """900 texts of 1,000 letters are sampled at 1 %, but the one with a snowman is found among them."""
    install_count = accelerating._FIRST_BYTES // 1000
    fast = Accelerated(LoadedTokenizer("x", "v", True, DEFAULT.tokenizer), Fake())
    fast.count_batch(["a" * 1000] * install_count)  # uses up what the start allows
    fast._fast = Fake(lambda text: counted(text) + ("☃" in text))
    texts = ["b" * 1000] * 900
    texts[450] = "☃" + texts[450]
    with pytest.raises(CountsDiffer):
        fast.count_batch(texts)


def test_what_cannot_be_loaded_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastokens", None)
    found, problem = load_accelerated("default")
    assert problem == "it cannot be used for default (ModuleNotFoundError)"
    assert found.count_batch(["a b"]) == DEFAULT.count_batch(["a b"])


TEXTS = st.lists(st.text(st.characters(codec="utf-8"), max_size=60), max_size=30)


def test_the_real_one_counts_as_tokenizers_does() -> None:
    pytest.importorskip("fastokens", reason="the extra `accelerator` is not installed")
    found, problem = load_accelerated("default")
    assert problem is None
    assert isinstance(found, Accelerated)

    @settings(deadline=None, max_examples=200)
    @given(TEXTS)
    def alike(texts: list[str]) -> None:
        assert found.count_batch(texts) == DEFAULT.count_batch(texts)

    alike()
