"""How far proposals agree with what people say real tools do: `python -m tests.support.gold` prints the table."""

import fnmatch
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from authz.engine import effect_table
from authz.tools.catalog.propose import Proposal, propose
from authz.tools.catalog.tool import Listing, read_listing
from authz.tools.catalog.words import common_prefixes

FOLDER: Final = Path(__file__).parents[1] / "data" / "mcp"


@dataclass(frozen=True, slots=True)
class Judged:
    """A tool: what it does, and what is proposed."""

    system: str
    tool: str
    effects: frozenset[str]
    tier: str
    gold: dict[str, Any]
    proposal: Proposal | None

    @property
    def right(self) -> bool:
        """Effects and tier are exactly those of the gold list."""
        said = self.proposal
        return said is not None and (frozenset(said.effects), said.tier) == (
            self.effects,
            self.tier,
        )

    @property
    def lower(self) -> bool:
        """A proposal was made, and it lacks an effect or has a lower tier."""
        said = self.proposal
        return said is not None and (
            bool(self.effects - set(said.effects))
            or effect_table().rank(said.tier) < effect_table().rank(self.tier)
        )

    @property
    def places_agree(self) -> bool:
        """Resource and destination are those of the gold list."""
        if self.proposal is None:
            return False
        resource = (self.proposal.resource or {}).get("id")
        destination = (self.proposal.destination or {}).get("from")
        wanted = (self.gold.get("resource"), self.gold.get("destination"))
        return (resource, destination) == wanted


@cache
def listings() -> dict[str, Listing]:
    """Read the tools of all servers.

    Returns:
        Listings by system.
    """
    files = sorted(FOLDER.glob("*.json"))
    return {file.stem: read_listing(file.read_text()) for file in files}


def judged() -> Iterator[Judged]:
    """Propose for every tool.

    Yields:
        Each with what the gold list says.
    """
    gold = yaml.safe_load((FOLDER / "gold.yaml").read_text())
    for system, listing in listings().items():
        prefixes = common_prefixes(listing.tools)
        assert gold[system].keys() == {tool.name for tool in listing.tools}, system
        for tool in listing.tools:
            said = gold[system][tool.name]
            yield Judged(
                system,
                tool.name,
                frozenset(said["effects"]),
                said["tier"],
                said,
                propose(system, tool, prefixes),
            )


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A tool of a server that the rules were not written for."""

    system: str
    tool: str
    only_reads: bool
    proposal: Proposal | None

    @property
    def is_understated(self) -> bool:
        """A tool that does more than read has a proposal that says it reads, or that its tier is `low`."""
        said = self.proposal
        return (
            said is not None
            and not self.only_reads
            and (said.effects == ("read",) or said.tier == "low")
        )


def held_out() -> Iterator[HeldOut]:
    """Propose for every tool of the held-out servers.

    Yields:
        Each with what `reads.yaml` says.
    """
    folder = FOLDER / "held_out"
    reads = yaml.safe_load((folder / "reads.yaml").read_text())
    for path in sorted(folder.glob("*.json")):
        listing = read_listing(path.read_text())
        prefixes = common_prefixes(listing.tools)
        patterns = [
            name
            for entry in reads[path.stem]
            for name in (entry if isinstance(entry, list) else [entry])
        ]
        for pattern in patterns:
            assert fnmatch.filter([tool.name for tool in listing.tools], pattern), pattern
        for tool in listing.tools:
            only_reads = any(fnmatch.fnmatchcase(tool.name, pattern) for pattern in patterns)
            yield HeldOut(path.stem, tool.name, only_reads, propose(path.stem, tool, prefixes))


def report() -> str:
    """Write the table.

    Returns:
        Counts by system, then every tool whose proposal is not right.
    """
    every = list(judged())
    words = ("tools", "right", "higher", "none", "lower")
    lines = [f"{'system':>19}  " + "  ".join(f"{word:>6}" for word in words)]
    for system in listings():
        mine = [one for one in every if one.system == system]
        none = sum(one.proposal is None for one in mine)
        right, lower = sum(one.right for one in mine), sum(one.lower for one in mine)
        counts = (len(mine), right, len(mine) - right - none - lower, none, lower)
        lines.append(f"{system[:19]:>19}  " + "  ".join(f"{count:>6}" for count in counts))
    right = sum(one.right for one in every)
    places = sum(one.places_agree for one in every if one.right)
    lines.append(f"\n{right} of {len(every)} right ({right / len(every):.1%}).")
    lines.append(f"Of these, resource and destination are those of the gold list in {places}.\n")
    others = list(held_out())
    proposed = sum(one.proposal is not None for one in others)
    understated = [f"{one.system} {one.tool}" for one in others if one.is_understated]
    lines.append(
        f"Held out: {proposed} of {len(others)} have a proposal; understated: {', '.join(understated) or 'none'}.\n"
    )
    for one in every:
        if not one.right:
            said = one.proposal
            got = f"{' '.join(said.effects)}, {said.tier} ({said.why})" if said else "no proposal"
            wanted = f"{' '.join(sorted(one.effects))}, {one.tier}"
            lines.append(f"{one.system} {one.tool}: {wanted}; got {got}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(report())
