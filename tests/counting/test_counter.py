"""Counting in the background gives what counting one by one gives, in the order of first sight."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from cachesim.counting.counter import PENDING, TokenCounter, text_digest
from cachesim.counting.resolve import LoadedTokenizer
from cachesim.errors import CachesimError


def tiny() -> LoadedTokenizer:
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return LoadedTokenizer("tiny", "1", True, tokenizer)


TINY = tiny()


@dataclass
class Scripted:
    """Stands in for a tokenizer: counts characters, or does what the test asks for."""

    source: str = "scripted"
    batches: list[list[str]] = field(default_factory=list)
    error: BaseException | None = None
    gate: threading.Event | None = None

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        self.batches.append(list(texts))
        if self.gate is not None:
            self.gate.wait()
        if self.error is not None:
            raise self.error
        return [len(text) for text in texts]

    def loaded(self) -> LoadedTokenizer:
        return cast(LoadedTokenizer, self)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXTS, max_size=40), st.integers(1, 200), st.integers(0, 40))
def test_same_as_counting_one_by_one(texts: list[str], batch_bytes: int, remembered: int) -> None:
    one_by_one = [TINY.count_batch([text])[0] for text in texts]
    known = {text_digest(text): count for text, count in zip(texts[:remembered], one_by_one, strict=False)}
    with TokenCounter(TINY, known, batch_bytes=batch_bytes) as counter:
        slots = [counter.slot(text) for text in texts]
        counter.finish()
    assert [counter.counts[slot] for slot in slots] == one_by_one
    first_sight = list(dict.fromkeys(texts))
    assert slots == [first_sight.index(text) for text in texts]
    unknown = [text for text in first_sight if text_digest(text) not in known]
    assert list(counter.new_counts()) == sorted((text_digest(text), TINY.count_batch([text])[0]) for text in unknown)


@pytest.mark.parametrize("text", ["", "\0", "é", "😀", "\u2028", "\x7f", " ", "word " * 400_000])
def test_odd_texts(text: str) -> None:
    with TokenCounter(TINY, {}) as counter:
        slot = counter.slot(text)
        counter.finish()
        assert counter.counts[slot] == len(TINY.tokenizer.encode(text).ids)


def test_known_texts_are_never_tokenized() -> None:
    scripted = Scripted()
    remembered = {text_digest("old"): 77}
    with TokenCounter(scripted.loaded(), remembered.get, batch_bytes=1) as counter:
        for text in ("old", "new", "old", "new"):
            counter.slot(text)
        counter.finish()
    assert list(counter.counts) == [77, 3]
    assert scripted.batches == [["new"]]
    assert list(counter.new_counts()) == [(text_digest("new"), 3)]


def test_a_remembered_count_of_zero_counts_as_known() -> None:
    scripted = Scripted()
    with TokenCounter(scripted.loaded(), {text_digest("x"): 0}) as counter:
        counter.slot("x")
        counter.finish()
    assert list(counter.counts) == [0]
    assert scripted.batches == []


def test_texts_are_sent_in_batches_of_about_the_wanted_bytes() -> None:
    scripted = Scripted()
    with TokenCounter(scripted.loaded(), {}, batch_bytes=10) as counter:
        for text in ("aaaa", "bbbb", "cccc", "é" * 5, "dd"):
            counter.slot(text)
        counter.finish()
    # 4 + 4 + 4 bytes reach 10; five é are 10 bytes; the rest goes with finish().
    assert sorted(scripted.batches) == [["aaaa", "bbbb", "cccc"], ["dd"], ["ééééé"]]


def test_more_texts_may_follow_a_finish() -> None:
    with TokenCounter(TINY, {}) as counter:
        counter.slot("a b")
        counter.finish()
        assert counter.slot("a b") == 0
        counter.slot("c")
        counter.finish()
    assert list(counter.counts) == [2, 1]


@pytest.mark.parametrize("error", [ValueError("secret prompt"), BaseException("panic")])
def test_a_failing_tokenizer_surfaces_and_does_not_block(error: BaseException) -> None:
    scripted = Scripted(error=error)
    counter = TokenCounter(scripted.loaded(), {}, batch_bytes=1)

    def feed() -> None:
        for number in range(100):
            counter.slot(str(number))
        counter.finish()

    with pytest.raises(CachesimError, match="token counting with scripted") as caught:
        feed()
    assert "secret" not in str(caught.value)
    counter.close()
    assert list(counter.new_counts()) == []


def test_close_stops_the_threads_with_work_still_queued() -> None:
    gate = threading.Event()
    scripted = Scripted(gate=gate)
    counter = TokenCounter(scripted.loaded(), {}, batch_bytes=1)
    for text in ("a", "b", "c", "d"):
        counter.slot(text)
    closing = threading.Thread(target=counter.close)
    closing.start()
    gate.set()
    closing.join(timeout=10)
    assert not closing.is_alive()
    assert not [thread for thread in threading.enumerate() if thread.name == "count" and thread.is_alive()]
    counter.close()
    with pytest.raises(CachesimError, match="closed"):
        counter.finish()


def test_counts_are_pending_until_finished() -> None:
    with TokenCounter(TINY, {}) as counter:
        counter.slot("a b c")
        assert list(counter.counts) == [PENDING]
        assert list(counter.new_counts()) == []
