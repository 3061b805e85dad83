"""Checks that depend on what their session did, and Checks that change it, beside stateless ones; all on tasks.

`python -m bench.load.remembering SPEC` reads a `bench.load.checks.Spec` as JSON and prints what it measured as JSON. Each
session carries four labels, and two rules over the order of events have come one step far in it.
"""

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from authz.engine import Engine
from bench.load import bundle, checks, credentials

KINDS = ("stateless", "reads", "changes")
"""What a Check has to do with its session."""
TIMES = ("cpu", "wall", "crowd_cpu", "crowd")
"""Of a call of one caller; then with many callers at once, of the whole process, and from one answer to the next."""
CALLERS = 32
_LABELS = ("pii", "secret", "customer-data", "untrusted")
# With a window each call is a step: it counts from the last time that it was seen.
_SEQUENCES = {"read-after": "1h", "read-again": "2h"}
# One more policy for each kind of Check. None fires: what is measured is a permit.
_CONDITIONS = {
    "stateless": 'context.enforcer == "another-closed-gateway"',
    "reads": """context.session.labels.contains(Label::"sealed")
|| ((context.sequences.contains(Sequence::"read-after") || context.sequences.contains(Sequence::"read-again"))
&& context.chain.depth > 8)""",
    "changes": 'context.session.labels.contains(Label::"sealed")',
}


def write(folder: Path, policies: int) -> dict[str, list[str]]:
    """Writes a bundle with operations of each kind.

    Args:
        folder: made, if it does not exist.
        policies: how many judge operations, beside one more of each kind.

    Returns:
        By kind the operations, which differ in nothing else.

    Raises:
        ValueError: too few policies for a system of each kind.
    """
    written = bundle.write(folder, policies, tasks=True)
    bare = sorted({one.partition(".")[0] for one in written.stateless})
    if len(bare) < len(KINDS):
        raise ValueError(f"{policies} policies do not hold a system of each kind")
    systems = dict(zip(KINDS, bare, strict=False))
    operations = {
        kind: [one for one in written.operations if one.startswith(f"{system}.")]
        for kind, system in systems.items()
    }
    facts = {
        "labels": {
            label: {"kind": "trust" if label == "untrusted" else "confidentiality"}
            for label in _LABELS
            if label != "pii"
        },
        # An exact id goes before the glob that the bundle has of its system.
        "classify": [
            {
                "match": one,
                "effects": ["read"],
                "tier": "standard",
                "resource": {"collection": "plain", "id": "/id"},
                "yields": list(_LABELS),
            }
            for one in operations["changes"]
        ],
        "sequences": {
            name: {
                "never": f"{systems['reads']}.*",
                "after": f"{systems['changes']}.*",
                "within": within,
            }
            for name, within in _SEQUENCES.items()
        },
    }
    (folder / "history.yaml").write_text(json.dumps(facts, indent=1) + "\n")
    (folder / "policies" / "history.cedar").write_text(
        "".join(
            f'@id("history-{system}") @reason("what came before")\n'
            f'forbid(principal, action in Action::"system:{system}", resource) when {{ {_CONDITIONS[kind]} }};\n'
            for kind, system in systems.items()
        )
    )
    return operations


def measure(spec: checks.Spec) -> dict[str, Any]:
    """Measures Checks of each kind.

    Args:
        spec: what is measured.

    Returns:
        `rows`: of each kind, the medians over all rounds. `ratios`: of each other kind over the stateless one and each time,
        every round and the median. `callers`: how many are many.

    Raises:
        CheckError: a Check was not permitted, or reserved where it should not, or the other way round.
    """
    folder = Path(spec.folder)
    folder.mkdir(parents=True, exist_ok=True)
    operations = write(folder / "bundle", spec.policies)
    written = bundle.Bundle(folder / "bundle", spec.policies, ())
    minted = credentials.mint(folder / "trust", spec.tasks)
    engine = checks.engine(spec, folder, written, minted)
    try:
        started = checks.started(engine, minted)
        asked = {
            kind: checks.requests(operations[kind], minted, started, subjects=False)
            for kind in KINDS
        }
        # From here on each session carries all labels.
        for kind in ("changes", *KINDS):
            checks.half(engine, asked[kind], len(asked[kind]), _reserves(kind, len(asked[kind])))
        with ThreadPoolExecutor(_callers(spec)) as pool:
            for kind in KINDS:
                crowd(engine, pool, asked[kind], spec.calls, _callers(spec))
            rounds = [
                {kind: _round(engine, pool, kind, asked[kind], spec) for kind in KINDS}
                for _ in range(spec.pairs)
            ]
    finally:
        engine.close()
    return {
        "rows": _rows(spec.state, rounds),
        "ratios": _ratios(spec.state, rounds),
        "callers": _callers(spec),
    }


def _callers(spec: checks.Spec) -> int:
    return min(CALLERS, spec.tasks)


def _reserves(kind: str, calls: int) -> int:
    return calls if kind == "changes" else 0


def _round(
    engine: Engine,
    pool: ThreadPoolExecutor,
    kind: str,
    asked: Sequence[bytes],
    spec: checks.Spec,
) -> dict[str, float]:
    one = checks.half(engine, asked, spec.calls, _reserves(kind, spec.calls))
    many = crowd(engine, pool, asked, spec.calls, _callers(spec))
    return {"cpu": one.cpu, "wall": one.wall, "crowd_cpu": many.cpu, "crowd": many.wall}


def crowd(
    engine: Engine, pool: ThreadPoolExecutor, asked: Sequence[bytes], calls: int, callers: int
) -> checks.Half:
    """Makes calls from many threads at once, and checks that all were permitted.

    Args:
        engine: the engine.
        pool: the threads, which a server would keep as well.
        asked: the requests, shared out among the threads so that no two ask within one session at once.
        calls: how many, at least.
        callers: how many threads; the tasks of the requests are a multiple of it.

    Returns:
        Processor time of the process, and time, for each call, in microseconds.

    Raises:
        CheckError: one was not permitted.
    """
    each = -(-calls // callers)

    def ask(number: int) -> list[bytes]:
        mine = asked[number::callers]
        return [engine.check(mine[index % len(mine)], checks.FACTS) for index in range(each)]

    cpu, wall = time.process_time(), time.perf_counter()
    answers = list(pool.map(ask, range(callers)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    for answer in (answer for mine in answers for answer in mine):
        checks.permitted(answer)
    made = each * callers
    return checks.Half(cpu / made * 1e6, wall / made * 1e6)


def _rows(state: str, rounds: Sequence[Mapping[str, Mapping[str, float]]]) -> list[dict[str, Any]]:
    return [
        {
            "state": state,
            "check": kind,
            **{
                f"{name}_us": round(statistics.median(one[kind][name] for one in rounds), 2)
                for name in TIMES
            },
        }
        for kind in KINDS
    ]


def _ratios(
    state: str, rounds: Sequence[Mapping[str, Mapping[str, float]]]
) -> list[dict[str, Any]]:
    return [
        checks.ratio(
            kind, state, name, [one[kind][name] / one["stateless"][name] for one in rounds]
        )
        for kind in KINDS[1:]
        for name in TIMES
    ]


if __name__ == "__main__":
    checks.main(measure)
