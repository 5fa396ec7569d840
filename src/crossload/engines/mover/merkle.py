"""Merkle tree hash of RFC 6962 section 2.1, streaming: memory grows with log2 of the number of leaves. Audit paths of
section 2.1.1, and their check as RFC 9162 section 2.1.3.2 writes it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence


def leaf_hash(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


class MerkleTree:
    """Feed leaves in order, then ask for the root. The empty tree's root is SHA-256 of nothing (RFC 6962)."""

    def __init__(self) -> None:
        self._stack: list[bytes] = []
        self.leaves = 0

    def add(self, data: bytes) -> None:
        self._stack.append(leaf_hash(data))
        # As many merges as the new leaf's index has trailing one bits: complete subtrees of equal height join.
        index = self.leaves
        while index & 1:
            right, left = self._stack.pop(), self._stack.pop()
            self._stack.append(node_hash(left, right))
            index >>= 1
        self.leaves += 1

    def root(self) -> bytes:
        if not self._stack:
            return hashlib.sha256(b"").digest()
        joined = self._stack[-1]
        for left in reversed(self._stack[:-1]):
            joined = node_hash(left, joined)
        return joined


class PathTree(MerkleTree):
    """A tree that keeps the audit path of one leaf as it grows: one pass, memory of log2 of the number of leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.index: int | None = None  # of the leaf whose path is kept
        self._path: list[bytes] = []
        self._holder = -1  # which entry of the stack is the subtree that the leaf is in

    def add(self, data: bytes, *, wanted: bool = False) -> None:
        """Append a leaf; `wanted` at most once, for the leaf whose path is to be kept."""
        if wanted:
            if self.index is not None:
                raise ValueError(f"the path of leaf {self.index} is kept already")
            self.index, self._holder = self.leaves, len(self._stack)
        self._stack.append(leaf_hash(data))
        index = self.leaves
        while index & 1:
            right, left = self._stack.pop(), self._stack.pop()
            place = len(self._stack)
            if self._holder == place:
                self._path.append(right)
            elif self._holder == place + 1:
                self._path.append(left)
                self._holder = place
            self._stack.append(node_hash(left, right))
            index >>= 1
        self.leaves += 1

    def path(self) -> list[bytes]:
        """Sibling hashes from the leaf up to the root of the leaves so far. Raises ValueError without a leaf."""
        if self.index is None:
            raise ValueError("no leaf was wanted")
        path = list(self._path)
        place = len(self._stack) - 1
        joined, inside = self._stack[place], self._holder == place
        while place:
            place -= 1
            left = self._stack[place]
            if inside:
                path.append(left)
            elif self._holder == place:
                path.append(joined)
                inside = True
            joined = node_hash(left, joined)
        return path


def root_from_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root that the hash `leaf` at `index` of `size` leaves leads to by `path`; None when no tree of that size has
    a path of that form. The steps and their letters are those of RFC 9162."""
    if not 0 <= index < size:
        return None
    fn, sn, r = index, size - 1, leaf
    for p in path:
        if sn == 0:
            return None
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            while not fn & 1 and fn:
                fn >>= 1
                sn >>= 1
        else:
            r = node_hash(r, p)
        fn >>= 1
        sn >>= 1
    return r if sn == 0 else None


def merkle_root(leaves: Iterable[bytes]) -> bytes:
    tree = MerkleTree()
    for leaf in leaves:
        tree.add(leaf)
    return tree.root()
