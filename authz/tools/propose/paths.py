"""Routes for recorded forms of paths."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from authz.tools.propose.observations import UnroutedRequest

__all__ = ["MANY", "Form", "forms"]

MANY: Final = 10
"""Number of different words at one place of otherwise equal paths from which on they count as ids."""
_ANY: Final = "*"


@dataclass(slots=True)
class Form:
    """Requests that one route would match."""

    method: str
    """The method."""
    host: str
    """The host."""
    segments: tuple[str, ...]
    """Words, and `*` for an id."""
    request: UnroutedRequest = field(default_factory=UnroutedRequest)
    """Merged requests."""
    why: set[str] = field(default_factory=set)
    """Kinds of segments that count as ids."""

    @property
    def path(self) -> str:
        """Path as in a route: `/tickets/{id}/notes/{id2}`."""
        names = iter(self.names)
        return "/" + "/".join(
            "{" + next(names) + "}" if segment == _ANY else segment for segment in self.segments
        )

    @property
    def names(self) -> list[str]:
        """Names of the ids in the path."""
        number = self.segments.count(_ANY)
        return [f"id{at}" if at > 1 else "id" for at in range(1, number + 1)]

    def take(self, request: UnroutedRequest, why: Iterable[str]) -> None:
        """Merge a request, with the kinds of its segments that count as ids."""
        self.request.count.merge(request.count)
        self.request.query |= request.query
        self.request.body = self.request.body or request.body
        self.why.update(why)


def forms(observed: dict[tuple[str, str, str], UnroutedRequest]) -> list[Form]:
    """Merge requests that one route would match; sorted."""
    by_key: dict[tuple[str, str, tuple[str, ...]], Form] = {}
    for (method, host, path), request in sorted(observed.items()):
        segments, why = [], []
        for segment in path.removeprefix("/").split("/"):
            kind = segment.startswith("{")
            segments.append(_ANY if kind else segment)
            if kind:
                why.append({"{text}": "text that is not a word"}.get(segment, segment.strip("{}")))
        key = (method, host, tuple(segments))
        by_key.setdefault(key, Form(*key)).take(request, why)
    longest = max((len(form.segments) for form in by_key.values()), default=0)
    for place in range(longest):
        _fold(by_key, place)
    return [form for _, form in sorted(by_key.items())]


def _fold(by_key: dict[tuple[str, str, tuple[str, ...]], Form], place: int) -> None:
    """Replace the words at one place by an id if there are many different ones."""
    groups: dict[tuple[str, str, tuple[str, ...]], list[Form]] = {}
    for (method, host, segments), form in by_key.items():
        if place < len(segments) and segments[place] not in {"", _ANY}:
            key = (method, host, (*segments[:place], _ANY, *segments[place + 1 :]))
            groups.setdefault(key, []).append(form)
    for key, group in groups.items():
        if len(group) < MANY:
            continue
        folded = by_key.setdefault(key, Form(*key))
        for form in group:
            folded.take(form.request, form.why)
            del by_key[(form.method, form.host, form.segments)]
        folded.why.add(f"{len(group)} different words")
