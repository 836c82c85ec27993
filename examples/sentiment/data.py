"""Sentences rated by people (Hutto and Gilbert, VADER, ICWSM 2014), as word numbers: is the sentence positive or negative?"""

from __future__ import annotations

import functools
import hashlib
import html
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[1]))  # examples/, for assets.py
import assets

LABELS = ("negative", "positive")
SOURCES = ("tweets", "amazonReviewSnippets", "movieReviewSnippets", "nytEditorialSnippets")
LENGTH = 32
"""Words a sentence is cut or filled up to."""
VOCABULARY_SIZE = 4000
PADDING, UNKNOWN = 0, 1
CLEAR_RATING = 0.5
"""Ratings run from -4 to 4; sentences nearer to 0 are neither positive nor negative."""
TEST_SHARE = 0.2

_WORD = re.compile(r"[:;=8][-o']?[()\[\]dp/|]|[a-z0-9]+(?:'[a-z]+)?|[!?.,;:\"()&$%]")
"""Emoticons, words with their apostrophes, punctuation."""


@functools.cache
def sentences() -> tuple[tuple[str, int], ...]:
    """``(text, class)`` of the 19,459 clearly rated sentences, in the order of the published files."""
    folder, found = assets.find("sentences"), []
    for source in SOURCES:
        for line in (folder / f"{source}_GroundTruth.txt").read_text(encoding="utf-8").splitlines():
            _, rating, text = line.split("\t", 2)
            if abs(float(rating)) >= CLEAR_RATING:
                found.append((html.unescape(text), int(float(rating) > 0)))
    return tuple(found)


def is_test(text: str) -> bool:
    """Whether a sentence judges the model: decided by its digest, so that equal sentences stay on one side."""
    return hashlib.sha256(text.encode()).digest()[0] < TEST_SHARE * 256


def words(text: str) -> list[str]:
    """Lower-case words and marks of a sentence.

    >>> words("Yay. Another good interview :)")
    ['yay', '.', 'another', 'good', 'interview', ':)']
    """
    return _WORD.findall(text.lower())


@functools.cache
def vocabulary() -> dict[str, int]:
    """Word -> number, for the most frequent words of the training sentences; 0 is padding, 1 any other word."""
    counts = Counter(word for text, _ in sentences() if not is_test(text) for word in words(text))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return {word: number for number, word in enumerate(ranked[: VOCABULARY_SIZE - 2], start=2)}


def encode(texts: Sequence[str]) -> NDArray[np.int32]:
    """Sentences -> word numbers ``[N, 32]``."""
    numbers, encoded = vocabulary(), np.full((len(texts), LENGTH), PADDING, np.int32)
    for row, text in zip(encoded, texts, strict=True):
        found = [numbers.get(word, UNKNOWN) for word in words(text)][:LENGTH]
        row[: len(found)] = found
    return encoded


@functools.cache
def split(*, test: bool) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Word numbers ``[N, 32]`` and classes ``[N]`` of the test sentences, or of the others."""
    chosen = [(text, label) for text, label in sentences() if is_test(text) is test]
    return encode([text for text, _ in chosen]), np.array([label for _, label in chosen], np.int64)


def evaluation(batch_size: int = 128) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int64]]]:
    """The test sentences with their classes."""
    numbers, classes = split(test=True)
    for start in range(0, len(classes), batch_size):
        yield numbers[start : start + batch_size], classes[start : start + batch_size]


def calibration(count: int = 256, batch_size: int = 32) -> Iterator[NDArray[np.int32]]:
    """Training sentences spread evenly over all sources."""
    numbers, _ = split(test=False)
    chosen = numbers[np.linspace(0, len(numbers) - 1, count).astype(int)]
    for start in range(0, count, batch_size):
        yield chosen[start : start + batch_size]
