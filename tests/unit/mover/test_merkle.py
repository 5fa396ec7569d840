"""RFC 6962 trees: the published roots, and a second implementation written from the RFC's recursive definition."""

from __future__ import annotations

import hashlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossload.engines.mover.merkle import (
    MerkleTree,
    PathTree,
    leaf_hash,
    merkle_root,
    node_hash,
    root_from_path,
)

# Leaves and roots of the reference data that Certificate Transparency implementations share.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
    )
]  # fmt: skip
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@pytest.mark.parametrize("count", range(9))
def test_published_roots(count: int) -> None:
    assert merkle_root(LEAVES[:count]).hex() == ROOTS[count]


def rfc6962(leaves: list[bytes]) -> bytes:
    """MTH of section 2.1, as it is written there."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + rfc6962(leaves[:k]) + rfc6962(leaves[k:])).digest()


@given(st.lists(st.binary(max_size=40), max_size=70))
def test_streaming_equals_the_recursive_definition(leaves: list[bytes]) -> None:
    assert merkle_root(leaves) == rfc6962(leaves)


def test_every_size_up_to_300() -> None:
    tree = MerkleTree()
    leaves: list[bytes] = []
    for number in range(300):
        assert tree.root() == rfc6962(leaves)
        assert tree.leaves == number
        leaves.append(b"%d" % number)
        tree.add(leaves[-1])


@given(st.lists(st.binary(max_size=8), min_size=2, max_size=20), st.data())
def test_any_change_changes_the_root(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    changed = [*leaves[:index], leaves[index] + b"!", *leaves[index + 1 :]]
    dropped = [*leaves[:index], *leaves[index + 1 :]]
    assert len({merkle_root(leaves), merkle_root(changed), merkle_root(dropped)}) == 3


def test_a_leaf_cannot_pose_as_a_node() -> None:
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert merkle_root([left + right]) != node_hash(left, right)


def test_memory_grows_with_the_logarithm() -> None:
    tree = MerkleTree()
    for number in range(5000):
        tree.add(number.to_bytes(4, "big"))
    assert len(tree._stack) <= 13


# -- audit paths -----------------------------------------------------------------------------------------------------


def rfc6962_path(index: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of section 2.1.1, as it is written there."""
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if index < k:
        return [*rfc6962_path(index, leaves[:k]), rfc6962(leaves[k:])]
    return [*rfc6962_path(index - k, leaves[k:]), rfc6962(leaves[:k])]


def path_tree(leaves: list[bytes], index: int) -> PathTree:
    tree = PathTree()
    for number, leaf in enumerate(leaves):
        tree.add(leaf, wanted=number == index)
    return tree


@pytest.mark.parametrize("size", range(71))
def test_root_and_every_path_of_every_size(size: int) -> None:
    leaves = [b"%d of %d" % (number, size) for number in range(size)]
    root = rfc6962(leaves)
    assert merkle_root(leaves) == root
    for index, leaf in enumerate(leaves):
        tree = path_tree(leaves, index)
        path = tree.path()
        assert (tree.root(), tree.index, tree.leaves) == (root, index, size)
        assert path == rfc6962_path(index, leaves)
        assert root_from_path(leaf_hash(leaf), index, size, path) == root


@pytest.mark.parametrize("size", range(1, 20))
def test_a_path_proves_one_place_in_one_size_only(size: int) -> None:
    leaves = [b"%d" % number for number in range(size)]
    root = rfc6962(leaves)
    for index in range(size):
        path, leaf = rfc6962_path(index, leaves), leaf_hash(leaves[index])
        for other in range(-1, size + 2):
            if other != index:
                assert root_from_path(leaf, other, size, path) != root
        assert root_from_path(leaf, index, size, [*path, leaf]) != root
        assert not path or root_from_path(leaf, index, size, path[:-1]) != root
        assert not path or root_from_path(leaf, index, size, path[1:]) != root
        assert root_from_path(leaf_hash(b"other"), index, size, path) != root


@given(st.lists(st.binary(max_size=12), min_size=1, max_size=200), st.data())
def test_a_changed_path_leads_elsewhere(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    path, leaf, root = path_tree(leaves, index).path(), leaf_hash(leaves[index]), rfc6962(leaves)
    assert root_from_path(leaf, index, len(leaves), path) == root
    if path:
        place = data.draw(st.integers(0, len(path) - 1))
        bit = data.draw(st.integers(0, 255))
        broken = bytearray(path[place])
        broken[bit // 8] ^= 1 << bit % 8
        changed = [*path[:place], bytes(broken), *path[place + 1 :]]
        assert root_from_path(leaf, index, len(leaves), changed) != root


def test_one_path_a_tree() -> None:
    tree = PathTree()
    with pytest.raises(ValueError, match="no leaf was wanted"):
        tree.path()
    tree.add(b"a", wanted=True)
    with pytest.raises(ValueError, match="kept already"):
        tree.add(b"b", wanted=True)


def test_a_leaf_costs_at_most_five_microseconds() -> None:
    """Best of five: CPU time, but a busy neighbour slows even that."""
    leaf, count = b"x" * 120, 20_000

    def once() -> float:
        tree, began = MerkleTree(), time.process_time()
        for _ in range(count):
            tree.add(leaf)
        tree.root()
        return time.process_time() - began

    assert min(once() for _ in range(5)) / count <= 5e-6
