"""Trains the embedded default tokenizer on generated text only and writes it; the same seed gives the same bytes.

    python tools/train_default_tokenizer.py [--out cachesim/counting/default_tokenizer.json.gz]

The corpus is what `cachesim.synth.text` writes from the project's own word lists and templates. The result is a
byte-level BPE whose counts estimate those of current models; it is never exact for any of them.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from cachesim.synth.text import Writer
from cachesim.synth.words import VOCABULARY, adverb, gerund, past, third_person

SEED: Final = 1
VOCABULARY_SIZE: Final = 32_000
CORPUS_BYTES: Final = 16_000_000
# A mark sticks to the letters after it (`.name`, `_id`, `(self`), digits go in threes, a line end ends a run.
SPLIT: Final = (
    r"\p{N}{1,3}"
    r"|[\p{P}\p{S}]?[A-Za-z]+"
    r"|[^\r\n\p{L}\p{P}\p{S}\p{N}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)
SHARES: Final = {
    "paragraph": 5,
    "markdown": 6,
    "python": 7,
    "javascript": 2,
    "other": 4,
    "json": 2,
    "output": 7,
}
"""How often each kind of text is written."""


def corpus(seed: int, size: int) -> Iterator[str]:
    """About `size` characters of generated text, after every word of the vocabulary in its inflections."""
    for _ in range(3):
        yield from every_word()
    writer = Writer(Random(seed))
    kinds = [kind for kind, share in SHARES.items() for _ in range(share)]
    written = 0
    while written < size:
        text = restyle(writer.text(kinds[int(writer.rng.random() * len(kinds))]), writer.rng.random())
        written += len(text)
        yield text + "\n\n"


def restyle(text: str, draw: float) -> str:
    """Some texts as they also occur: indented with tabs, escaped inside JSON, shouted, with trailing blanks."""
    if draw < 0.15:
        return re.sub(r"^(?: {4})+", lambda match: "\t" * (len(match[0]) // 4), text, flags=re.MULTILINE)
    if draw < 0.22:
        return json.dumps(text, ensure_ascii=False)
    if draw < 0.25:
        return text.upper()
    if draw < 0.28:
        return re.sub(r"\n\n|(?<=[:;,])\n", "\n        \n", text)
    return text


def derived() -> Iterator[str]:
    """Nouns and adjectives formed from the verbs: `creator`-like words are too many to list."""
    for verb in VOCABULARY["verbs"]:
        stem = verb.removesuffix("e")
        yield stem + ("r" if verb.endswith("er") else "er")
        yield stem + "able"
        if verb.endswith("ate"):
            yield stem + "ion"
        elif verb.endswith("ize"):
            yield stem + "ation"
        elif verb.endswith("ify"):
            yield verb.removesuffix("y") + "ication"


def every_word() -> Iterator[str]:
    """Each word alone, after a space and capitalised, so that none is missing by chance."""
    v = VOCABULARY
    inflected = [form(verb) for verb in v["verbs"] for form in (third_person, past, gerund)]
    inflected += [third_person(noun) for noun in v["nouns"]] + [adverb(word) for word in v["adjectives"]]
    for words in (*v.values(), inflected, tuple(derived())):
        for word in words:
            yield f" {word} {word.capitalize()}\n{word.capitalize()} {word}_{word}.{word}({word} {word.upper()}"


def train(seed: int, size: int, vocabulary_size: int) -> bytes:
    """The tokenizer.json of a byte-level BPE trained on `corpus(seed, size)`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(seed, size), trainer)
    return tokenizer.to_str().encode()


def main() -> None:
    """Trains and writes the file; prints its size."""
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description="Train the embedded default tokenizer on generated text.")
    parser.add_argument("--out", type=Path, default=root / "cachesim/counting/default_tokenizer.json.gz")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--size", type=int, default=CORPUS_BYTES)
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY_SIZE)
    arguments = parser.parse_args()
    data = gzip.compress(train(arguments.seed, arguments.size, arguments.vocabulary), 9, mtime=0)
    arguments.out.write_bytes(data)
    print(f"{arguments.out}: {len(data)} bytes")


if __name__ == "__main__":
    main()
