"""The tree against RFC 6962's own definition, and its published test vectors."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.audit.tree import Frontier, leaf_hash, node_hash


def defined(leaves: list[bytes]) -> bytes:
    """MTH as RFC 6962, 2.1 writes it down, over leaf hashes."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node_hash(defined(leaves[:split]), defined(leaves[split:]))


def grown(leaves: list[bytes]) -> Frontier:
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier


# certificate-transparency's merkle_tree_test: these inputs, and the root after each of them.
INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def test_the_published_vectors_hold() -> None:
    frontier = Frontier()
    assert frontier.root().hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    for given_, root in zip(INPUTS, ROOTS, strict=True):
        frontier.append(leaf_hash(bytes.fromhex(given_)))
        assert frontier.root().hex() == root


def test_every_size_up_to_130_is_as_the_rfc_defines_it() -> None:
    leaves = [leaf_hash(str(n).encode()) for n in range(130)]
    frontier = Frontier()
    for size, leaf in enumerate(leaves, 1):
        frontier.append(leaf)
        assert frontier.root() == defined(leaves[:size])


@given(st.lists(st.binary(max_size=8), max_size=300), st.integers(0, 300))
def test_a_frontier_that_was_saved_goes_on_as_if_it_never_was(lines: list[bytes], cut: int) -> None:
    leaves = [leaf_hash(line) for line in lines]
    before = grown(leaves[:cut])
    after = Frontier(before.size, before.roots)
    for leaf in leaves[cut:]:
        after.append(leaf)
    assert after.root() == defined(leaves)


def test_roots_that_do_not_fit_the_size_are_refused() -> None:
    with pytest.raises(ValueError, match="full subtrees"):
        Frontier(3, [b"x" * 32])
