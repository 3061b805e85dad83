"""The policies of a bundle as texts: where each stands, and the head that says for whom and for what it is."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["Policy", "changed_policies", "read_policies"]

_ID: Final = re.compile(r'@id\(\s*"((?:[^"\\]|\\.)*)"\s*\)')
_REASON: Final = re.compile(r'@reason\(\s*"((?:[^"\\]|\\.)*)"\s*\)')
_HEAD: Final = re.compile(r"\b(permit|forbid)\s*\(")
_TEXT: Final = re.compile(r'("(?:[^"\\]|\\.)*")')
_ENTITY: Final = re.compile(r'(\w+)::"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy."""

    id: str
    """`@id`."""
    file: str
    """Where it stands."""
    line: int
    """Its first line, from 1."""
    text: str
    """As written, without comments before it."""
    effect: str
    """`permit` or `forbid`."""
    reason: str
    """`@reason`; may be empty."""
    principal: str
    """What its head says of the principal: `principal in Role::"staff"`."""
    action: str
    """What its head says of the action."""

    @property
    def conditional(self) -> bool:
        """It has a `when` or `unless`."""
        return re.search(r"\)\s*(when|unless)\b", self.text) is not None

    def speaks_of(self, operation: str) -> bool:
        """Tell whether its head can name an operation.

        Args:
            operation: The id.

        Returns:
            Whether it does, as far as the head alone says it: groups by effect may.
        """
        named = {id_ for kind, id_ in _ENTITY.findall(self.action) if kind == "Action"}
        if not named:
            return True
        system = operation.partition(".")[0]
        return bool(named & {operation, f"system:{system}"}) or any(
            id_.startswith("effect:") for id_ in named
        )

    def roles(self) -> frozenset[str]:
        """The roles that its head asks for; empty where it asks for none."""
        return frozenset(id_ for kind, id_ in _ENTITY.findall(self.principal) if kind == "Role")

    def names(self) -> frozenset[str]:
        """The principals that its head names themselves."""
        return frozenset(id_ for kind, id_ in _ENTITY.findall(self.principal) if kind != "Role")


def read_policies(files: Mapping[str, bytes]) -> dict[str, Policy]:
    """Read the policies of a bundle.

    Args:
        files: Its files.

    Returns:
        Policies by id; one without an id is left out.
    """
    found: dict[str, Policy] = {}
    for name, content in sorted(files.items()):
        if name.endswith(".cedar"):
            for policy in _policies(name, content.decode(errors="replace")):
                found.setdefault(policy.id, policy)
    return found


def changed_policies(old: Mapping[str, Policy], new: Mapping[str, Policy]) -> dict[str, list[str]]:
    """Compare the policies of two bundles.

    Args:
        old: Policies by id.
        new: The same, later.

    Returns:
        Ids that are `added`, `removed` and `changed`; how a policy is wrapped does not count.
    """

    def words(policy: Policy) -> str:
        return "".join(
            part if part.startswith('"') else "".join(part.split())
            for part in _TEXT.split(policy.text)
        )

    return {
        "added": sorted(set(new) - set(old)),
        "removed": sorted(set(old) - set(new)),
        "changed": sorted(one for one in set(old) & set(new) if words(old[one]) != words(new[one])),
    }


def _policies(file: str, text: str) -> Iterator[Policy]:
    for line, source in _statements(text):
        head = _HEAD.search(source)
        ids = _ID.search(source)
        if head is None or ids is None:
            continue
        scope = _scope(source, head.end())
        parts = [" ".join(part.split()) for part in _split(scope)]
        reason = _REASON.search(source)
        yield Policy(
            id=_plain(ids[1]),
            file=file,
            line=line,
            text=source,
            effect=head[1],
            reason=_plain(reason[1]) if reason else "",
            principal=parts[0] if parts else "",
            action=parts[1] if len(parts) > 1 else "",
        )


def _plain(text: str) -> str:
    return text.replace('\\"', '"').replace("\\\\", "\\")


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Cut a file at the semicolons outside of texts and comments."""
    kept: list[str] = []
    line, start, at = 1, 0, 0
    quoted = False
    while at < len(text):
        here = text[at]
        if not quoted and text.startswith("//", at):
            end = text.find("\n", at)
            at = len(text) if end < 0 else end
            continue
        if here == "\n":
            line += 1
        if quoted and here == "\\":
            kept.append(text[at : at + 2])
            at += 2
            continue
        if here == '"':
            quoted = not quoted
        if here == ";" and not quoted:
            yield start, "".join(kept).strip() + ";"
            kept, start = [], 0
        elif kept or not here.isspace():
            start = start or line
            kept.append(here)
        at += 1


def _scope(source: str, start: int) -> str:
    """What stands between the head's parentheses."""
    for at, _, depth in _outside(source, start):
        if depth < 0:
            return source[start:at]
    return source[start:]


def _split(scope: str) -> Iterator[str]:
    """Cut a head at its own commas."""
    begin = 0
    for at, here, depth in _outside(scope, 0):
        if here == "," and not depth:
            yield scope[begin:at]
            begin = at + 1
    if scope[begin:].strip():
        yield scope[begin:]


def _outside(source: str, at: int) -> Iterator[tuple[int, str, int]]:
    """Every character outside of texts, with its place and how many parentheses are open after it."""
    depth, quoted = 0, False
    while at < len(source):
        here = source[at]
        if quoted and here == "\\":
            at += 2
            continue
        if here == '"':
            quoted = not quoted
        elif not quoted:
            depth += (here in "([") - (here in ")]")
            yield at, here, depth
        at += 1
