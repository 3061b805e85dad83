"""Renders HTML with the files in `templates`, which escape all values, and serves the files in `static`."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

from authz.approvals.inert import visible
from authz.server.http.approvals_page.cards import part_kind
from authz_client.v1 import approvals_pb2

__all__ = ["QueueEntries", "Renderer", "StaticFile", "by_queue", "status_words"]

_FOLDER: Final = Path(__file__).parent
_TYPES: Final = {".css": "text/css", ".js": "text/javascript"}
_STATUS_WORDS: Final[Mapping[int, str]] = {
    approvals_pb2.APPROVAL_STATUS_PENDING: "open",
    approvals_pb2.APPROVAL_STATUS_APPROVED: "approved",
    approvals_pb2.APPROVAL_STATUS_REJECTED: "rejected",
    approvals_pb2.APPROVAL_STATUS_EXPIRED: "expired",
    approvals_pb2.APPROVAL_STATUS_CONSUMED: "approved and used",
}
_QUEUE_WORDS: Final = {
    "confirm": "Confirm what your agent does",
    "approve": "Approve for others",
    "two_person": "Approve together with a second person",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file that the page loads."""

    content: bytes
    """Content."""
    media_type: str
    """Media type."""


@dataclass(frozen=True, slots=True)
class QueueEntries:
    """Open approvals of one queue, oldest first."""

    heading: str
    """Heading of the queue."""
    approvals: Sequence[approvals_pb2.Approval]
    """Its approvals."""


class Renderer:
    """Renders the pages.

    Args:
        base: Path of the page's base URL, without a slash at its end.
    """

    def __init__(self, base: str) -> None:
        self._base = base
        self._environment = Environment(
            loader=FileSystemLoader(_FOLDER / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters["time"] = _time
        self._environment.filters["status"] = status_words
        self._environment.filters["hex"] = bytes.hex
        self._environment.filters["kind"] = part_kind
        self._environment.filters["queue"] = _queue_words
        self._environment.filters["visible"] = visible
        self.static, names = _read_static()
        self._environment.globals.update(base=base, **names)

    def page(self, template: str, context: Mapping[str, Any], status: int = 200) -> Response:
        """Return a page.

        Args:
            template: Name of its file, without the suffix.
            context: Variables of the template.
            status: HTTP status.
        """
        text = self._environment.get_template(f"{template}.html").render(context)
        return HTMLResponse(text, status)


def status_words(status: int) -> str:
    """Return the name of a status for people."""
    return _STATUS_WORDS.get(status, "unknown")


def by_queue(approvals: Iterable[approvals_pb2.Approval]) -> list[QueueEntries]:
    """Group open approvals by the queues that still lack an answer."""
    groups: dict[str, list[approvals_pb2.Approval]] = {}
    for approval in sorted(approvals, key=lambda one: one.created_at.ToMilliseconds()):
        groups.setdefault(", ".join(approval.waits_for), []).append(approval)
    return [QueueEntries(_queue_words(name), groups[name]) for name in sorted(groups)]


def _queue_words(queue: str) -> str:
    role = queue.removeprefix("approve:")
    if role != queue and ", " not in queue:
        return f"Approve as {role}"
    return _QUEUE_WORDS.get(queue, queue or "Open")


def _time(at: Timestamp | float) -> Markup:
    """Return a time in UTC. The script of the page shows it in local time."""
    seconds = at.ToMicroseconds() / 1e6 if isinstance(at, Timestamp) else float(at)
    when = datetime.fromtimestamp(seconds, UTC).replace(microsecond=0)
    machine = when.isoformat().replace("+00:00", "Z")
    return Markup('<time datetime="{}">{} UTC</time>').format(machine, f"{when:%Y-%m-%d %H:%M:%S}")


def _read_static() -> tuple[dict[str, StaticFile], dict[str, str]]:
    """Read the files of the folder `static`. Their names on the page include a digest, so that browsers may cache them."""
    files, names = {}, {}
    for path in sorted((_FOLDER / "static").iterdir()):
        if path.suffix not in _TYPES:
            continue
        content = path.read_bytes()
        name = f"{path.stem}.{hashlib.sha256(content).hexdigest()[:16]}{path.suffix}"
        files[name] = StaticFile(content, _TYPES[path.suffix])
        names[f"{path.stem}_{path.suffix[1:]}"] = name
    return files, names
