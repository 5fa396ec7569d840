"""How one piece of new bytes is made small, and made large again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crossload.engines.mover.chunks.words import Data, shuffle, unshuffle, xor
from crossload.ports.errors import Invalid, Unsupported

if TYPE_CHECKING:
    from zstandard import ZstdCompressor, ZstdDecompressor

LEVEL = 1
PIECE_BYTES_MAX = 2**20  # packed at once; larger ones gain nothing, and cost memory
RATIO_MAX = 0.9  # above it zstd is not worth its time
WIDTHS = (1, 2, 4, 8)
_WINDOWS, _WINDOW_BYTES = 4, 32 * 2**10
_SURPRISE = 0.1


@dataclass(frozen=True, slots=True)
class Way:
    """`xor`: against the base; `width`: word size of the shuffle, 1 for none; `packed`: zstd, else as it is."""

    xor: bool = False
    width: int = 1
    packed: bool = True


STORED = Way(packed=False)


@dataclass(frozen=True, slots=True)
class Packed:
    """`expected` is the ratio that the sample promised; the next piece of the same kind begins with `way`."""

    way: Way
    frame: bytes
    expected: float


def compressor(level: int = LEVEL) -> ZstdCompressor:
    """Raises Unsupported without the extra `move`."""
    try:
        from zstandard import ZstdCompressor
    except ImportError as error:
        raise Unsupported("patches need zstandard, which is not here", hint="pip install 'crossload[move]'") from error
    return ZstdCompressor(level=level)


class Packer:
    """Packs pieces one after another. Not for two threads at once. Raises Unsupported without the extra `move`."""

    def __init__(self) -> None:
        self._zstd = compressor()

    def choose(self, piece: Data, near: Data | None, widths: tuple[int, ...]) -> tuple[Way, float]:
        """The way that makes a sample of the piece smallest, and its ratio; STORED when none gets below RATIO_MAX.
        `near` are the bytes of the base to XOR with, as many as the piece has."""
        left, right = _sample(piece), None if near is None else _sample(near)
        best, least = STORED, RATIO_MAX
        for way in [Way(other, width) for other in (False, True) for width in widths]:
            if way.xor and right is None:
                continue
            ratio = self._ratio(left, right, way)
            if ratio < least:
                best, least = way, ratio
        return best, least if best.packed else 1.0

    def pack(self, piece: Data, near: Data | None, widths: tuple[int, ...], before: Packed | None = None) -> Packed:
        """The piece's frame. `before` is the last piece of the same tensor, whose way is used again while it does what
        its sample promised. A frame is never longer than its piece."""
        fresh = before is None or (before.way.xor and near is None) or self._closer(piece, near, widths, before)
        way, expected = self.choose(piece, near, widths) if before is None or fresh else (before.way, before.expected)
        frame = self._frame(piece, near, way)
        if not fresh and len(frame) > (expected + _SURPRISE) * len(piece):
            other, expected = self.choose(piece, near, widths)
            if other != way:
                way, frame = other, self._frame(piece, near, other)
        if len(frame) >= len(piece) and way.packed:
            return Packed(STORED, bytes(piece), expected)
        return Packed(way, frame, expected)

    def _closer(self, piece: Data, near: Data | None, widths: tuple[int, ...], before: Packed) -> bool:
        """The last piece had nothing to do with the base's, and this one has."""
        if near is None or before.way.xor:
            return False
        ratio = self._ratio(_sample(piece), _sample(near), Way(xor=True, width=widths[-1]))
        return ratio < before.expected - _SURPRISE

    def _ratio(self, left: bytes, right: bytes | None, way: Way) -> float:
        return len(self._zstd.compress(_forth(left, right, way))) / len(left)

    def _frame(self, piece: Data, near: Data | None, way: Way) -> bytes:
        return self._zstd.compress(_forth(piece, near, way)) if way.packed else bytes(piece)


class Unpacker:
    """The way back. What comes in may be an enemy's: nothing is allocated by what a frame says of itself."""

    def __init__(self) -> None:
        compressor()  # the same refusal, with the same words
        from zstandard import ZstdDecompressor

        self._zstd: ZstdDecompressor = ZstdDecompressor()

    def unpack(self, frame: bytes, size_bytes: int, way: Way, near: Data | None) -> bytes:
        """Raises Invalid when the frame does not hold exactly that many bytes."""
        from zstandard import ZstdError, frame_content_size

        if size_bytes > PIECE_BYTES_MAX or (way.xor and (near is None or len(near) != size_bytes)):
            raise Invalid(f"a frame of {size_bytes} bytes")
        data: Data = frame
        if way.packed:
            try:
                if frame_content_size(frame) != size_bytes:
                    raise Invalid("a frame holds another number of bytes than the patch says")
                data = self._zstd.decompress(frame, max_output_size=size_bytes, allow_extra_data=False)
            except ZstdError as error:
                raise Invalid(f"a frame cannot be unpacked: {error}") from error
        if len(data) != size_bytes:
            raise Invalid("a frame holds another number of bytes than the patch says")
        data = unshuffle(data, way.width)
        return bytes(xor(data, near) if way.xor and near is not None else data)


def _forth(piece: Data, near: Data | None, way: Way) -> Data:
    return shuffle(xor(piece, near) if way.xor and near is not None else piece, way.width)


def _sample(piece: Data) -> bytes:
    """A few windows, spread evenly; each begins at a word."""
    if len(piece) <= _WINDOWS * _WINDOW_BYTES:
        return bytes(piece)
    step = (len(piece) - _WINDOW_BYTES) // (_WINDOWS - 1) // 8 * 8
    return b"".join(bytes(piece[at * step : at * step + _WINDOW_BYTES]) for at in range(_WINDOWS))
