"""XOR and byte shuffle. With numpy where it is installed, else with the standard library at about a third the speed."""

from __future__ import annotations

from functools import cache
from typing import Any

Data = bytes | bytearray | memoryview


@cache
def vectorised() -> Any:
    """The module numpy, None when it is not installed."""
    try:
        import numpy
    except ImportError:
        return None
    return numpy


def xor(left: Data, right: Data) -> Data:
    """left XOR right, of the same length. Its own inverse."""
    if len(left) != len(right):
        raise ValueError(f"{len(left)} bytes XOR {len(right)} bytes")
    numpy = vectorised()
    if numpy is not None:
        return memoryview(numpy.bitwise_xor(numpy.frombuffer(left, "u1"), numpy.frombuffer(right, "u1")))
    return (int.from_bytes(left, "little") ^ int.from_bytes(right, "little")).to_bytes(len(left), "little")


def shuffle(data: Data, width: int) -> Data:
    """First bytes of all words, then second bytes, and so on; a rest shorter than one word stays behind them."""
    if width == 1 or len(data) < 2 * width:
        return data
    whole = len(data) - len(data) % width
    numpy = vectorised()
    if numpy is None:
        data = bytes(data)
        return b"".join([*(data[at:whole:width] for at in range(width)), data[whole:]])
    octets, planes, rows = numpy.frombuffer(data, "u1"), numpy.empty(len(data), "u1"), whole // width
    for at in range(width):
        planes[at * rows : (at + 1) * rows] = octets[at:whole:width]
    planes[whole:] = octets[whole:]
    return memoryview(planes)


def unshuffle(data: Data, width: int) -> Data:
    """The inverse of shuffle."""
    if width == 1 or len(data) < 2 * width:
        return data
    rows = len(data) // width
    whole = rows * width
    numpy = vectorised()
    planes: Any = memoryview(data) if numpy is None else numpy.frombuffer(data, "u1")
    words: Any = bytearray(len(data)) if numpy is None else numpy.empty(len(data), "u1")
    for at in range(width):
        words[at:whole:width] = planes[at * rows : (at + 1) * rows]
    words[whole:] = planes[whole:]
    return words if numpy is None else memoryview(words)
