"""Values with which the cards of a node compare the values of a call: recipient lists of the loaded bundle, and units of amounts."""

import csv
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final

from authz.approvals.card import CardReferences, MissingReference, compared_values
from authz.approvals.lookalikes import RecipientIndex
from authz.engine import Plan
from authz.model import BundleFiles, RecipientList
from authz.server.snapshot import Snapshot
from authz_client.v1 import approvals_pb2

__all__ = ["ServedReferences"]

_MOST_ENTRIES: Final = 50_000
"""Maximum number of entries of all recipient lists that cards compare with. Smaller lists are read first."""

_NO_BUNDLE: Final = MissingReference("Recipient lists", "no bundle is loaded")


@dataclass(frozen=True, slots=True)
class _BundleReferences:
    digest: str
    """Digest of the bundle."""
    index: RecipientIndex
    amount_scales: Mapping[str, Mapping[str, int]]
    """Divisors of amounts, by operation and JSON pointer."""
    missing: tuple[MissingReference, ...]
    """Recipient lists whose entries cards do not compare with, or not all of them."""


class ServedReferences:
    """Finds the references of a card. The first card after a reload reads the recipient lists, so call it on a thread.

    Lists that the node fetches are left out, because the node keeps only digests of their entries. The card names them.

    Args:
        snapshot: Returns the snapshot of the loaded bundle.
    """

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot
        self._lock = threading.Lock()
        self._read: _BundleReferences | None = None

    def __call__(self, approval: approvals_pb2.Approval) -> CardReferences:
        """Return the references of the card of an approval."""
        snapshot = self._snapshot()
        if snapshot.plan is None or snapshot.bundle_files is None:
            return CardReferences(missing=(_NO_BUNDLE,))
        read = self._of(snapshot.plan, snapshot.bundle_files)
        return CardReferences(
            recipients=read.index.near(compared_values(approval)),
            amount_scales=read.amount_scales.get(approval.operation, {}),
            missing=read.missing,
        )

    def _of(self, plan: Plan, files: BundleFiles) -> _BundleReferences:
        with self._lock:
            if self._read is None or self._read.digest != plan.digest:
                entries = _entries_by_list(plan.recipient_lists, files)
                self._read = _BundleReferences(
                    digest=plan.digest,
                    index=RecipientIndex(entries),
                    missing=tuple(_missing_lists(plan.recipient_lists, entries)),
                    amount_scales={
                        id_: operation.amounts
                        for id_, operation in plan.describe().operations.items()
                        if operation.amounts
                    },
                )
            return self._read


def _entries_by_list(
    lists: tuple[RecipientList, ...], files: BundleFiles
) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    left = _MOST_ENTRIES
    of_files = [one for one in lists if one.file in files.files]
    for one in sorted(of_files, key=lambda one: (one.entries or 0, one.name)):
        # The engine has read the file before, and refuses a bundle whose file it cannot read.
        text = files.files[one.file].decode("utf-8-sig", "replace")
        found[one.name] = tuple(islice(filter(None, _entries(text, one.column)), left))
        left -= len(found[one.name])
    return found


def _missing_lists(
    lists: tuple[RecipientList, ...], entries: Mapping[str, tuple[str, ...]]
) -> Iterator[MissingReference]:
    """Yield the lists that cards do not compare with, and those that they do not compare with as a whole."""
    for one in sorted(lists, key=lambda one: one.name):
        name = f"Recipient list {one.name}"
        if one.name not in entries:
            yield MissingReference(
                name, "the node fetches it and keeps only digests of its entries"
            )
        elif len(entries[one.name]) < (one.entries or 0):
            text = f"only {len(entries[one.name])} of its {one.entries} entries were compared with"
            yield MissingReference(name, text)


def _entries(text: str, column: str | None) -> Iterator[str]:
    lines = text.splitlines()
    if column is None:
        return (line.strip() for line in lines)
    rows = csv.reader(lines)
    header = [name.strip() for name in next(rows, [])]
    if column not in header:
        return iter(())
    place = header.index(column)
    return chain.from_iterable((row[place].strip(),) for row in rows if len(row) > place)
