"""Merkle tree hash of RFC 6962 section 2.1, streaming: memory grows with log2 of the number of leaves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


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


def merkle_root(leaves: Iterable[bytes]) -> bytes:
    tree = MerkleTree()
    for leaf in leaves:
        tree.add(leaf)
    return tree.root()
