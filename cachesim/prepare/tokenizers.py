"""Which tokenizer counts for which model, each loaded once, its counts remembered between runs."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from typing import NamedTuple

from cachesim.core.calibration import Calibration
from cachesim.counting.accelerator import Counting
from cachesim.counting.counter import TokenCounter
from cachesim.counting.resolve import DEFAULT_TOKENIZER, load_tokenizer, tokenizer_version
from cachesim.prepare.chains import Slots
from cachesim.prepare.nodes import cumulate

UNMAPPED = "unmapped"


class ModelTokenizer(NamedTuple):
    """What the configuration says of one model alias: a tokenizer source, or `unmapped`; and a version override."""

    source: str
    version: str | None


class UsedTokenizer(NamedTuple):
    """A tokenizer of the trace; `exact` is false for the embedded default, whose counts are estimates.

    counts_no: the tokenizer whose counts a calibrated one scales, None for one that counts itself.
    """

    source: str
    version: str
    exact: bool
    counts_no: int | None = None
    calibration: Calibration | None = None

    @property
    def model(self) -> str | None:
        """The model that a calibrated one counts for; None: any."""
        return None if self.calibration is None else self.calibration.model


class Mapped(NamedTuple):
    """A model's tokenizer by number (-1: unmapped), and where its counts go."""

    number: int
    slots: Slots


class Tokenizers:
    """Numbers the tokenizers of a trace in order of first use.

    choose: what the configuration says of an alias; known: counts remembered for a tokenizer version; load: the
    tokenizer of a choice, when the first text has to be counted.
    """

    def __init__(
        self,
        choose: Callable[[str | None], ModelTokenizer],
        known: Callable[[str], Mapping[bytes, int]],
        load: Callable[[ModelTokenizer], Counting] = lambda choice: load_tokenizer(*choice),
    ) -> None:
        self._choose = choose
        self._load = load
        self._known = known
        self._by_alias: dict[str | None, Mapped] = {}
        self._by_version: dict[str, Mapped] = {}
        self._by_choice: dict[ModelTokenizer, Mapped] = {}
        self.used: list[UsedTokenizer] = []
        self.counters: list[TokenCounter] = []
        self._counters: dict[str, TokenCounter] = {}
        self._counter_of: dict[str | None, TokenCounter] = {}
        self._unmapped = Mapped(-1, Slots(None))

    def of(self, alias: str | None) -> Mapped:
        """The tokenizer of a model alias. Raises InputError or ConfigError where it cannot be loaded."""
        mapped = self._by_alias.get(alias)
        if mapped is None:
            mapped = self._by_alias[alias] = self._map(self._choose(alias))
        return mapped

    def slots(self, number: int) -> Slots:
        """Where the counts of a numbered tokenizer go."""
        return list(self._by_version.values())[number].slots

    def counter(self, alias: str | None) -> TokenCounter:
        """Who counts for a model alias that has a tokenizer, be it numbered or not."""
        counter = self._counter_of.get(alias)
        if counter is None:
            choice = self._choose(alias)
            counter = self._counter(choice, tokenizer_version(choice.source, choice.version))
            self._counter_of[alias] = counter
        return counter

    def _map(self, choice: ModelTokenizer) -> Mapped:
        if choice.source == UNMAPPED:
            return self._unmapped
        mapped = self._by_choice.get(choice)
        if mapped is None:
            version = tokenizer_version(choice.source, choice.version)
            mapped = self._by_version.get(version)
            if mapped is None:
                mapped = self._by_version[version] = self._new(choice, version)
            self._by_choice[choice] = mapped
        return mapped

    def _new(self, choice: ModelTokenizer, version: str) -> Mapped:
        counter = self._counter(choice, version)
        self.used.append(UsedTokenizer(choice.source, version, choice.source != DEFAULT_TOKENIZER))
        self.counters.append(counter)
        return Mapped(len(self.used) - 1, Slots(counter))

    def _counter(self, choice: ModelTokenizer, version: str) -> TokenCounter:
        # Built only when the first unknown text is counted: a log whose counts are all remembered needs no tokenizer.
        counter = self._counters.get(version)
        if counter is None:
            counter = TokenCounter(lambda: self._load(choice), self._known(version))
            self._counters[version] = counter
        return counter

    def finish(self) -> None:
        """Wait until every text is counted. Raises CachesimError if a tokenizer failed."""
        for counter in self.counters:
            counter.finish()

    def close(self) -> None:
        """Stop counting, for interrupts."""
        for counter in self._counters.values():
            counter.close()

    def cumulative(self, parents: array[int]) -> list[array[int]]:
        """Per tokenizer the cumulative tokens of every boundary; boundaries it never counted hold 0 for their block."""
        totals: list[array[int]] = []
        for mapped, counter in zip(self._by_version.values(), self.counters, strict=True):
            counts, by_node = counter.counts, mapped.slots.by_node
            own = [counts[slot] if slot >= 0 else 0 for slot in by_node]
            own += [0] * (len(parents) - len(own))
            totals.append(cumulate(parents, own))
        return totals
