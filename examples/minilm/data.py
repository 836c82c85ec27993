"""Rated sentences, split into word pieces as BERT's uncased models expect them; what is judged is agreement with float."""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[1]))  # examples/, for assets.py and borrowed.py
import assets
from borrowed import borrow

_sentiment = borrow("sentiment", "data")

LENGTH = 32
"""Word pieces a sentence is cut or filled up to, its two marks included; the net itself takes up to 512."""
PADDING = 0
LIBRARY_COUNT, EVALUATION_COUNT, CALIBRATION_COUNT = 512, 400, 128
MAX_WORD_LENGTH = 100  # longer words become [UNK], as BERT's own tokenizer does

_PART = re.compile(r"[^\W_]+|[^\s\w]|_")
"""Runs of letters and digits; every mark on its own."""


@functools.cache
def vocabulary() -> dict[str, int]:
    """Word piece -> number; the 30,522 lines of BERT's uncased vocabulary."""
    lines = (assets.find("minilm") / "vocab.txt").read_text(encoding="utf-8").splitlines()
    return {piece: number for number, piece in enumerate(lines)}


def pieces(word: str) -> list[str]:
    """Longest known pieces from the left (WordPiece; Wu et al., arXiv:1609.08144, section 4.1)."""
    found: list[str] = []
    start = 0
    while start < len(word):
        prefix = "##" if start else ""
        ends = (end for end in range(len(word), start, -1) if prefix + word[start:end] in vocabulary())
        end = next(ends, None)
        if end is None or len(word) > MAX_WORD_LENGTH:
            return ["[UNK]"]
        found.append(prefix + word[start:end])
        start = end
    return found


def encode(texts: Sequence[str]) -> NDArray[np.int32]:
    """Sentences -> word piece numbers ``[N, 32]``: ``[CLS]``, the sentence in lower case without accents, ``[SEP]``, padding."""
    numbers, encoded = vocabulary(), np.full((len(texts), LENGTH), PADDING, np.int32)
    for row, text in zip(encoded, texts, strict=True):
        plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
        found = [piece for word in _PART.findall(plain) for piece in pieces(word)][: LENGTH - 2]
        row[: len(found) + 2] = [numbers[piece] for piece in ("[CLS]", *found, "[SEP]")]
    return encoded


@functools.cache
def _texts() -> tuple[list[str], list[str], list[str]]:
    """Sentences of the library, for evaluation and for calibration: three sets without a sentence in common."""
    test = list(dict.fromkeys(text for text, _ in _sentiment.sentences() if _sentiment.is_test(text)))
    other = list(dict.fromkeys(text for text, _ in _sentiment.sentences() if not _sentiment.is_test(text)))
    evaluated, calibrated = _spread(test, EVALUATION_COUNT), _spread(other, CALIBRATION_COUNT)
    judging = set(evaluated)
    library_texts = _spread([text for text in test if text not in judging], LIBRARY_COUNT)
    return library_texts, evaluated, calibrated


def _spread(texts: Sequence[str], count: int) -> list[str]:
    """``count`` of the sentences, evenly over all sources."""
    return [texts[index] for index in np.linspace(0, len(texts) - 1, count).astype(int)]


def library() -> NDArray[np.int32]:
    """The sentences that queries are looked up in, ``[512, 32]``."""
    return encode(_texts()[0])


def evaluation(batch_size: int = 16) -> Iterator[tuple[NDArray[np.int32], None]]:
    """The 400 queries, without labels."""
    encoded = encode(_texts()[1])
    for start in range(0, len(encoded), batch_size):
        yield encoded[start : start + batch_size], None


def calibration(batch_size: int = 16) -> Iterator[NDArray[np.int32]]:
    """128 other sentences."""
    encoded = encode(_texts()[2])
    for start in range(0, len(encoded), batch_size):
        yield encoded[start : start + batch_size]
