"""Messages between a caller and the child that holds its model: what is sent arrives, and what is forged is refused."""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.core.errors import DataError, IntegrityError
from edgekit.core.frames import Channel


@pytest.fixture
def pipe() -> Iterator[tuple[Channel, int]]:
    """A channel that reads what is written to itself, and the descriptor to forge with."""
    reads, writes = os.pipe()
    yield Channel(reads=reads, writes=writes), writes
    for descriptor in (reads, writes):
        with contextlib.suppress(OSError):
            os.close(descriptor)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "int32", "int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4)])
def test_arrays_arrive_as_they_were_sent(pipe: tuple[Channel, int], dtype: str, shape: tuple[int, ...]) -> None:
    sent = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    pipe[0].send({"word": "ü"}, {"x": sent, "transposed": sent.T})
    header, found = pipe[0].receive(limit_bytes=1000)
    assert header == {"word": "ü"}
    for name, expected in (("x", sent), ("transposed", sent.T)):
        assert found[name].dtype == expected.dtype
        assert found[name].shape == expected.shape
        assert np.array_equal(found[name], expected)


def test_objects_are_not_sent(pipe: tuple[Channel, int]) -> None:
    with pytest.raises(DataError, match="object"):
        pipe[0].send({}, {"x": np.array([None])})


def forge(writes: int, header: bytes, *, mark: bytes = b"EKF1", length: int | None = None) -> None:
    os.write(writes, struct.pack("<4sI", mark, len(header) if length is None else length) + header)


ROWS = [
    ["x", "float32", [1000]], ["x", "float32", [2**40, 2**40]], ["x", "object", [1]], ["x", "float32", [-1]],
    ["x", "float32", [1.5]], ["x", "float32", [True]], ["x", "float32"], "x", 5, ["x", "float32", [1] * 40], [1, "int8", [1]],
    ["x", ["int8"], [1]], ["x", "<f4", [1]],
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_an_announced_array_is_checked_before_it_is_made(pipe: tuple[Channel, int], row: object) -> None:
    forge(pipe[1], json.dumps({"arrays": [row]}).encode())
    with pytest.raises(IntegrityError):
        pipe[0].receive(limit_bytes=3999)


@pytest.mark.parametrize("header", [b"", b"{", b"[]", b"5", b'{"arrays": {}}', b"\xff", b"[" * 100_000, b'{"arrays": "x"}'])
def test_a_header_must_be_an_object(pipe: tuple[Channel, int], header: bytes) -> None:
    os.set_blocking(pipe[1], True)
    if len(header) > 60_000:
        header = header[:60_000]
    forge(pipe[1], header)
    with pytest.raises(IntegrityError):
        pipe[0].receive(limit_bytes=10)


def test_a_mark_and_a_length_are_checked(pipe: tuple[Channel, int]) -> None:
    forge(pipe[1], b"{}", mark=b"HTTP")
    with pytest.raises(IntegrityError, match="HTTP"):
        pipe[0].receive(limit_bytes=10)


def test_a_long_header_is_not_read(pipe: tuple[Channel, int]) -> None:
    forge(pipe[1], b"", length=2**31)
    with pytest.raises(IntegrityError, match="2147483648"):
        pipe[0].receive(limit_bytes=10)


def test_the_end_is_seen_in_the_middle_of_a_message() -> None:
    reads, writes = os.pipe()
    channel = Channel(reads=reads, writes=writes)
    forge(writes, json.dumps({"arrays": [["x", "int8", [4]]]}).encode())
    os.write(writes, b"ab")
    os.close(writes)
    with pytest.raises(EOFError):
        channel.receive(limit_bytes=10)
    os.close(reads)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=200), length=st.integers(0, 250))
def test_any_bytes_are_an_answer_or_an_error(data: bytes, length: int) -> None:
    reads, writes = os.pipe()
    try:
        forge(writes, data, length=length)
    finally:
        os.close(writes)
    spare = os.open(os.devnull, os.O_WRONLY)
    try:
        with contextlib.suppress(EOFError, IntegrityError):
            Channel(reads=reads, writes=spare).receive(limit_bytes=64)
    finally:
        os.close(reads)
        os.close(spare)
