"""Frames inside streams, cut anywhere by the network: server-sent events, and the binary event stream.

Binary frame (all integers big-endian): total length u32, headers length u32, crc32 of those 8 bytes, headers, payload,
crc32 of everything before it. Header: name length u8, name, type u8, value; only type 7 (string, length u16) is
written, the other types are read over. Source: the "application/vnd.amazon.eventstream" encoding."""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

EVENT_STREAM_TYPE = "application/vnd.amazon.eventstream"
SSE_TYPE = "text/event-stream"
# A frame longer than this is taken for a broken length field, before we wait for gigabytes that never come.
FRAME_BYTES_MAX = 16 * 2**20
_PRELUDE = struct.Struct(">III")
_U32 = struct.Struct(">I")
_FIXED_VALUES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}


class FrameBroken(ValueError):
    """The bytes are no frame: a wrong checksum, an impossible length. The stream cannot be read any further."""


class SseReader:
    """`feed` gives the data of every event completed by these bytes. Lines end in LF, CR LF or CR; comments, ids and
    event names are dropped, because the chat wire carries everything in `data`."""

    __slots__ = ("_buffer", "_data", "_skip_lf")

    def __init__(self) -> None:
        self._buffer = b""
        self._data: list[bytes] = []
        self._skip_lf = False

    def feed(self, data: bytes) -> list[bytes]:
        if self._skip_lf and data:
            # The CR that ended the last line may have been the first half of CR LF, cut by the network.
            self._skip_lf = False
            if data[:1] == b"\n":
                data = data[1:]
        buffer = self._buffer + data
        if len(buffer) > FRAME_BYTES_MAX:
            raise FrameBroken("a line of the event stream is too long")
        if b"\r" in buffer:
            self._skip_lf = buffer.endswith(b"\r")
            buffer = buffer.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = buffer.split(b"\n")
        self._buffer = lines.pop()
        events: list[bytes] = []
        for line in lines:
            if line:
                if line.startswith(b"data:"):
                    self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            elif self._data:
                events.append(b"\n".join(self._data))
                self._data = []
        return events


def sse(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


class Frame(NamedTuple):
    headers: dict[str, str]
    payload: bytes


class EventStreamReader:
    """`feed` gives every frame completed by these bytes. Raises FrameBroken on a wrong checksum or length."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        start = 0
        while len(buffer) - start >= 12:
            total, headers_length, prelude_crc = _PRELUDE.unpack_from(buffer, start)
            if zlib.crc32(memoryview(buffer)[start : start + 8]) != prelude_crc:
                raise FrameBroken("wrong checksum over a frame's length")
            if not 16 + headers_length <= total <= FRAME_BYTES_MAX:
                raise FrameBroken(f"impossible frame length {total}")
            if len(buffer) - start < total:
                break
            frame = bytes(memoryview(buffer)[start : start + total])
            if zlib.crc32(memoryview(frame)[:-4]) != _U32.unpack_from(frame, total - 4)[0]:
                raise FrameBroken("wrong checksum over a frame")
            frames.append(Frame(_headers(frame, 12, 12 + headers_length), frame[12 + headers_length : -4]))
            start += total
        del buffer[:start]
        return frames


def _headers(frame: bytes, at: int, end: int) -> dict[str, str]:
    found: dict[str, str] = {}
    try:
        while at < end:
            name_end = at + 1 + frame[at]
            name = frame[at + 1 : name_end].decode()
            kind = frame[name_end]
            at = name_end + 1
            if kind in (6, 7):
                length = int.from_bytes(frame[at : at + 2], "big")
                if kind == 7:
                    found[name] = frame[at + 2 : at + 2 + length].decode()
                at += 2 + length
            else:
                at += _FIXED_VALUES[kind]
    except (IndexError, KeyError, UnicodeDecodeError) as error:
        raise FrameBroken("unreadable frame headers") from error
    if at != end:
        raise FrameBroken("frame headers end in the middle of a value")
    return found


def event_frame(event_type: str, payload: bytes) -> bytes:
    return _frame(_EVENT_HEADERS.get(event_type) or _event_headers(event_type), payload)


def exception_frame(exception_type: str, payload: bytes) -> bytes:
    pairs = ((":exception-type", exception_type), (":content-type", "application/json"), (":message-type", "exception"))
    return _frame(b"".join(_header(name, value) for name, value in pairs), payload)


def _event_headers(event_type: str) -> bytes:
    pairs = ((":event-type", event_type), (":content-type", "application/json"), (":message-type", "event"))
    return b"".join(_header(name, value) for name, value in pairs)


def _header(name: str, value: str) -> bytes:
    raw = value.encode()
    return bytes((len(name),)) + name.encode() + b"\x07" + len(raw).to_bytes(2, "big") + raw


def _frame(headers: bytes, payload: bytes) -> bytes:
    total = 16 + len(headers) + len(payload)
    lengths = struct.pack(">II", total, len(headers))
    prelude_crc = zlib.crc32(lengths)
    head = lengths + _U32.pack(prelude_crc) + headers
    return head + payload + _U32.pack(zlib.crc32(payload, zlib.crc32(head)))


_EVENT_HEADERS = {
    name: _event_headers(name)
    for name in (
        "messageStart",
        "contentBlockStart",
        "contentBlockDelta",
        "contentBlockStop",
        "messageStop",
        "metadata",
    )
}
