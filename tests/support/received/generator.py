"""Every request: ordinary ones, and those by which two readers of one request may understand two things."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from tests.support.received import bodies, frames, headers, targets
from tests.support.received.mutations import mutated
from tests.support.received.ordinary import ordinary
from tests.support.received.request import Request

#: How many ordinary requests there are, and how many with random changes.
ORDINARY: Final = 180
MUTATED: Final = 200
#: What each group tries, by its name.
SUSPICIOUS: Final[dict[str, Callable[[], Iterator[Request]]]] = {
    "content-types": bodies.content_types,
    "charsets": bodies.charsets,
    "ignored-bodies": bodies.ignored_bodies,
    "overrides": headers.overrides,
    "forwarding": headers.forwarding,
    "hosts": targets.hosts,
    "paths": targets.paths,
    "queries": targets.queries,
    "json-bodies": bodies.json_bodies,
    "precision": bodies.precision,
    "encodings": bodies.encodings,
    "upgrades": headers.upgrades,
    "headers": headers.headers,
    "frames": frames.frames,
}


def requests(seed: int) -> list[Request]:
    """Returns every request: the same ones for a seed."""
    random_ = random.Random(seed)
    made = [ordinary(random_) for _ in range(ORDINARY)]
    for group, write in SUSPICIOUS.items():
        made += [replace(request, group=group) for request in write()]
    made += [mutated(random_) for _ in range(MUTATED)]
    random_.shuffle(made)
    return made
