"""Heads of a node's audit log that other nodes recorded in theirs."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from authz.audit.heads import HeadError, read_head
from authz.audit.reader import read

__all__ = ["witnessed_heads"]


def witnessed_heads(logs: Iterable[Path], node: str) -> Iterator[str]:
    """Find the heads of a node that other nodes recorded, each once, in the form in which it was signed.

    Args:
        logs: Files of the other nodes' logs; `.gz` is unpacked on the way.
        node: Name of the node.

    Raises:
        UnavailableError: A file cannot be read.
    """
    seen: set[str] = set()
    for file in logs:
        for record in read(file, lambda _: None):
            heads = record.fields.get("heads")
            for head in heads if isinstance(heads, list) else ():
                text = json.dumps(head, separators=(",", ":"), ensure_ascii=False)
                if text not in seen and _is_of(text, node):
                    seen.add(text)
                    yield text


def _is_of(text: str, node: str) -> bool:
    """Return whether a recorded head is one of the node. Damaged heads are findings of the verification of the log that has them."""
    try:
        return read_head(text).head.node == node
    except HeadError:
        return False
