"""Which bytes of the base each part of a new safetensors file is to be compared with."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from crossload.engines.mover.chunks.tensors import Header, Tensor


@dataclass(frozen=True, slots=True)
class Region:
    """`size_bytes` bytes of the new file from `start`. `base` is where the base holds the same tensor, word by word;
    `near` is a span (start, size) of the base that holds it in another shape. `tensor` is False for the
    header. `word_bytes` is the size of one element."""

    start: int
    size_bytes: int
    word_bytes: int = 1
    base: int | None = None
    near: tuple[int, int] | None = None
    tensor: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """The new file's regions, in order and without gaps, and what came and went."""

    regions: tuple[Region, ...] = ()
    new: int = 0
    removed: int = 0
    reshaped: int = 0


def match(base: Header, new: Header) -> Match:
    """Tensors of the same name, type and shape are the same tensor, wherever they lie. A tensor whose name the base
    does not know is compared with one that lost its name, of the same type and shape: whole models are renamed, by a
    prefix. A wrong guess costs reads, never bytes."""
    there = {tensor.name: tensor for tensor in base.tensors}
    names = {tensor.name for tensor in new.tensors}
    orphans: defaultdict[tuple[str, tuple[int, ...]], list[Tensor]] = defaultdict(list)
    for tensor in reversed(base.tensors):
        if tensor.name not in names:
            orphans[tensor.dtype, tensor.shape].append(tensor)
    regions = [Region(0, new.size_bytes, base=0 if base.size_bytes == new.size_bytes else None)]
    reshaped = 0
    for tensor in new.tensors:
        known = there.get(tensor.name)
        alike = known is not None and (known.dtype, known.shape) == (tensor.dtype, tensor.shape)
        reshaped += known is not None and not alike
        if known is None and orphans[tensor.dtype, tensor.shape]:
            known, alike = orphans[tensor.dtype, tensor.shape].pop(), True
        same_words = known is not None and known.dtype == tensor.dtype
        regions.append(
            Region(
                tensor.start,
                tensor.size_bytes,
                tensor.word_bytes,
                base=known.start if known is not None and alike else None,
                near=(known.start, known.size_bytes) if known is not None and same_words and not alike else None,
                tensor=True,
            )
        )
    return Match(tuple(regions), len(names - set(there)), len(set(there) - names), reshaped)
