"""The chain of an audit log: the place that each line names, hashes of lines, and Merkle trees over them (RFC 9162 §2.1)."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from authz.audit.erasable import covered

__all__ = [
    "NO_HEAD",
    "Link",
    "MerkleTree",
    "inclusion_path",
    "leaf_hash",
    "read_link",
    "record_hash",
    "root_of_path",
]

NO_HEAD: Final = "0" * 64
"""Hash that the first line of the first segment names, in hex."""

_LINK: Final = re.compile(
    rb'"chain":\{"segment":(0|[1-9][0-9]{0,19}),"index":(0|[1-9][0-9]{0,19}),"previous":"([0-9a-f]{64})"\}\}\Z'
)
_MAX_SUFFIX: Final = 192


@dataclass(frozen=True, slots=True)
class Link:
    """Place of a line in the chain."""

    segment: int
    """Segment, from 1."""
    index: int
    """Place in the segment, from 0."""
    previous: str
    """Hash of the line before, in hex; for the first line of a segment, SHA-256 of the head of the segment before."""


def read_link(line: bytes) -> Link | None:
    """Read the place of a line.

    Args:
        line: The line, without its line feed.

    Returns:
        The place; None if the line names none, or not in the form in which the server writes it.
    """
    match = _LINK.search(line, max(0, len(line) - _MAX_SUFFIX))
    if match is None:
        return None
    return Link(int(match[1]), int(match[2]), match[3].decode())


def leaf_hash(line: bytes) -> bytes:
    """Hash a line without its line feed and without the texts that can be erased, as a leaf (RFC 9162 §2.1.1)."""
    return record_hash(covered(line))


def record_hash(record: bytes) -> bytes:
    """Hash the part of a line that the chain covers, as a leaf (RFC 9162 §2.1.1)."""
    return hashlib.sha256(b"\0" + record).digest()


def _node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


@dataclass(slots=True)
class MerkleTree:
    """An append-only Merkle tree, of which the roots of complete subtrees are kept."""

    count: int = 0
    """Number of leaves."""
    _subtrees: list[bytes] = field(default_factory=list)

    def push(self, leaf: bytes) -> None:
        """Add a leaf hash of 32 bytes."""
        self.count += 1
        ends = self.count
        while ends % 2 == 0:
            leaf = _node_hash(self._subtrees.pop(), leaf)
            ends //= 2
        self._subtrees.append(leaf)

    def root(self) -> bytes:
        """Return the root; of an empty tree, the hash of no bytes."""
        if not self._subtrees:
            return hashlib.sha256().digest()
        right = self._subtrees[-1]
        for left in reversed(self._subtrees[:-1]):
            right = _node_hash(left, right)
        return right


def _root(leaves: Sequence[bytes]) -> bytes:
    tree = MerkleTree()
    for leaf in leaves:
        tree.push(leaf)
    return tree.root()


def inclusion_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the inclusion proof of a leaf, from the leaf upwards (RFC 9162 §2.1.3.1).

    Args:
        leaves: All leaf hashes of the tree.
        index: Place of the leaf.

    Raises:
        IndexError: The tree has no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise IndexError(index)
    path: list[bytes] = []
    start, end = 0, len(leaves)
    while end - start > 1:
        middle = start + (1 << ((end - start - 1).bit_length() - 1))
        if index < middle:
            path.append(_root(leaves[middle:end]))
            end = middle
        else:
            path.append(_root(leaves[start:middle]))
            start = middle
    path.reverse()
    return path


def root_of_path(leaf: bytes, index: int, count: int, path: Sequence[bytes]) -> bytes | None:
    """Compute the root that an inclusion proof leads to (RFC 9162 §2.1.3.2).

    Args:
        leaf: Leaf hash.
        index: Place of the leaf.
        count: Number of leaves of the tree.
        path: The proof, from the leaf upwards.

    Returns:
        The root; None if the proof has the wrong length for the place.
    """
    if not 0 <= index < count:
        return None
    place, last, root = index, count - 1, leaf
    for node in path:
        if last == 0:
            return None
        if place % 2 == 1 or place == last:
            root = _node_hash(node, root)
            while place % 2 == 0 and place != 0:
                place, last = place // 2, last // 2
        else:
            root = _node_hash(root, node)
        place, last = place // 2, last // 2
    return root if last == 0 else None
