"""Readiness of the node, and the full status that operators see."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from authz.server.runtime_state import RuntimeState
from authz.server.snapshot import Snapshot
from authz.server.status.exception_reminder import breakglass_in_force, expiring
from authz.server.status.mode_reminder import entry_detail
from authz.server.status.trust_sources import TrustSourceStatus

__all__ = ["Readiness", "ReadinessReport", "StatusPart"]

_MAX_SHOWN: Final = 20


class StatusPart(Protocol):
    """A part of a node that reports its status."""

    def problems(self) -> Iterable[str]:
        """Return one line for each problem."""

    def detail(self) -> Any:
        """Return the status as JSON values."""


class SignerKeys(Protocol):
    """The keys that sign credentials."""

    @property
    def is_joining(self) -> bool:
        """Whether no key of this node has been able to sign since its start, while one of another node can."""

    def problems(self) -> Sequence[str]:
        """Return one line for each problem."""

    def detail(self) -> list[dict[str, Any]]:
        """Return each key as JSON values."""


@dataclass(frozen=True, slots=True)
class ReadinessReport:
    """Status of the node at one moment."""

    ready: bool
    """The node can decide."""
    problems: tuple[str, ...]
    """One line for each problem, of those that do not prevent decisions, too."""
    detail: Mapping[str, Any]
    """The full status as JSON values."""


class Readiness:
    """Collects the status of all parts.

    Args:
        version: Version of the software.
        profile: Build profile of the engine.
        runtime: Bundle and keys.
        sources: Status of the trust sources.
        engine: Returns the engine's status.
        insecure: Names of listeners with `insecure_dev`.
        started_at: Unix time of the start.
        more: Other parts, by the name of their detail.
        files: Paths of bundle and audit, by those names.
        listeners: Address of each listener.
        keys: The keys that sign credentials. `None`: none are issued.
        late: Returns one line for each part that is too late for the node to be ready: a listener that keeps calls waiting, or a
            required audit sink that lacks old records.
        clock: Unix time.
    """

    def __init__(
        self,
        version: str,
        profile: str,
        *,
        runtime: RuntimeState,
        sources: TrustSourceStatus,
        engine: Callable[[], Mapping[str, Any]],
        insecure: Sequence[str],
        started_at: float,
        more: Mapping[str, StatusPart] | None = None,
        files: Mapping[str, str] | None = None,
        listeners: Mapping[str, str] | None = None,
        keys: SignerKeys | None = None,
        late: Callable[[], Sequence[str]] = tuple,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._version = version
        self._profile = profile
        self._runtime = runtime
        self._sources = sources
        self._engine = engine
        self._insecure = tuple(insecure)
        self.started_at = started_at
        self._more = dict(more or {})
        self._files = dict(files or {})
        self._listeners = dict(listeners or {})
        self._keys = keys
        self._late = late
        self._clock = clock
        self._is_stopping = False
        self._is_serving = False

    def add(self, name: str, part: StatusPart) -> None:
        """Add a part, by the name of its detail."""
        self._more[name] = part

    def serving(self) -> None:
        """Note that every listener is open."""
        self._is_serving = True

    def stopping(self) -> None:
        """Note that the node drains; it is never ready again."""
        self._is_stopping = True

    def is_ready(self) -> bool:
        """Return whether the node can decide: `ready` of `report`, without the cost of the detail."""
        return self._is_ready(self._engine(), self._late())

    def report(self) -> ReadinessReport:
        """Return the status of the node."""
        snapshot, engine, late = self._runtime.snapshot, self._engine(), self._late()
        observing = self._observing(snapshot)
        ready = self._is_ready(engine, late)
        problems = tuple(self._problems(snapshot, engine, late, observing))
        detail = {
            "ready": ready,
            "problems": list(problems),
            "version": self._version,
            "build_profile": self._profile,
            "started_at": _time(self.started_at),
            "bundle": _bundle_detail(snapshot),
            "trust": self._trust_detail(snapshot),
            "last_reload_refused": [str(refusal) for refusal in snapshot.refused[:_MAX_SHOWN]],
            "insecure_dev": list(self._insecure),
            "files": self._files,
            "listeners": self._listeners,
            "observing": observing,
            # Agents whose users' prompts count by the agents' own word, up to tier standard.
            "harnesses": list(snapshot.plan.harnesses) if snapshot.plan is not None else [],
            "signing_keys": self._keys.detail() if self._keys is not None else None,
            "engine": dict(engine),
            **{name: part.detail() for name, part in self._more.items()},
        }
        return ReadinessReport(ready, problems, detail)

    def _is_ready(self, engine: Mapping[str, Any], late: Sequence[str]) -> bool:
        return (
            self._is_serving
            and not self._is_stopping
            and self._runtime.snapshot.plan is not None
            and not self._sources.waiting
            and self._runtime.knows_sequences
            and bool(engine.get("ready"))
            # A node that joins others waits until it can issue what they issue. Later it stays ready without a key, since
            # decisions need none.
            and not (self._keys is not None and self._keys.is_joining)
            and not late
        )

    def _problems(
        self,
        snapshot: Snapshot,
        engine: Mapping[str, Any],
        late: Sequence[str],
        observing: Sequence[Mapping[str, Any]],
    ) -> Iterator[str]:
        if self._is_stopping:
            yield "stopping"
        elif not self._is_serving:
            yield "starting"
        if snapshot.plan is None:
            yield "no bundle is loaded"
        if snapshot.trust is None:
            yield "no keys are loaded"
        yield from self._sources.problems()
        yield from (str(problem) for problem in engine.get("problems", ()))
        for part in self._more.values():
            yield from part.problems()
        yield from late
        if self._keys is not None:
            yield from self._keys.problems()
        if snapshot.refused:
            yield "the last reload was refused"
        if self._insecure:
            yield "insecure_dev: " + ", ".join(self._insecure)
        yield from _ending(observing)
        yield from expiring(engine.get("exceptions", ()), self._clock())
        yield from breakglass_in_force(engine.get("breakglass", ()))

    def _observing(self, snapshot: Snapshot) -> list[dict[str, Any]]:
        entries = snapshot.plan.observing if snapshot.plan is not None else ()
        return [entry_detail(entry, self._clock()) for entry in entries]

    def _trust_detail(self, snapshot: Snapshot) -> dict[str, Any] | None:
        if snapshot.trust is None:
            return None
        return {
            "revision": snapshot.trust.revision,
            "warnings": list(snapshot.trust.warnings[:_MAX_SHOWN]),
            "sources": self._sources.detail(),
        }


def _bundle_detail(snapshot: Snapshot) -> dict[str, Any] | None:
    plan = snapshot.plan
    if plan is None:
        return None
    return {
        "name": plan.name,
        "revision": plan.revision,
        "digest": plan.digest,
        "policies": plan.policy_count,
        "operations": plan.operation_count,
        "loaded_at": _time(snapshot.loaded_at),
        "rules": asdict(snapshot.rules),
        "warnings": [str(warning) for warning in plan.warnings[:_MAX_SHOWN]],
    }


def _ending(observing: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield one line for each entry of `mode` that observes and ends soon."""
    for entry in observing:
        if entry["ends_soon"]:
            scope = f"mode: {entry['scope']} {entry['name']}".rstrip()
            enforced = "it is enforced" if entry["scope"] == "policy" else "denials are enforced"
            ends = f"observes until {entry['until']}, then {enforced}"
            yield f"{scope} {ends} ({entry['owner']})"


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
