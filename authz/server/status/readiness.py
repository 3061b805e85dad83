"""Whether the node may be asked, and everything that an operator wants to know about it."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from authz.server.runtime_state import RuntimeState
from authz.server.status.mode_reminder import told
from authz.server.status.trust_sources import TrustSourceStatus

__all__ = ["Readiness", "ReadinessReport", "StatusPart"]


class StatusPart(Protocol):
    """A part of a node."""

    def problems(self) -> Iterable[str]:
        """What is wrong with it."""

    def detail(self) -> Any:
        """How it stands, as JSON values."""


class SignerKeys(Protocol):
    """The keys that sign credentials."""

    @property
    def is_joining(self) -> bool:
        """Whether no key of this node has been able to sign since its start, while one of another node can."""

    def problems(self) -> Sequence[str]:
        """What is wrong with them."""

    def detail(self) -> list[dict[str, Any]]:
        """Each of them, as JSON values."""


@dataclass(frozen=True, slots=True)
class ReadinessReport:
    """How the node stands at one moment."""

    ready: bool
    """It may be asked."""
    problems: tuple[str, ...]
    """What keeps it from being ready, or will soon."""
    detail: Mapping[str, Any]
    """All of it, as JSON values."""


class Readiness:
    """Puts together what the parts say.

    Args:
        version: Version of the software.
        profile: Build profile of the engine.
        runtime: Bundle and keys.
        sources: Where the keys come from.
        engine: Gives the engine's own account.
        insecure: Names of listeners with `insecure_dev`.
        more: Others that may have problems, by the name of their detail.
        files: Where bundle and audit are, by those names.
        listeners: The address of each listener.
        keys: The keys that sign credentials; none where none are issued.
        late: Tells which listeners keep calls waiting for too long.
        started_at: Unix time.
        clock: Unix time, for what ends.
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
        self._stopping = False
        self._serving = False

    def add(self, name: str, part: StatusPart) -> None:
        """Add another that may have problems.

        Args:
            name: Name of its detail.
            part: The part.
        """
        self._more[name] = part

    def serving(self) -> None:
        """Say that every listener is open."""
        self._serving = True

    def stopping(self) -> None:
        """Say that the node drains; it is never ready again."""
        self._stopping = True

    def is_ready(self) -> bool:
        """Tell whether the node may be asked.

        Returns:
            What `report` says of it, without the detail.
        """
        return self._is_ready(self._engine(), self._late())

    def _is_ready(self, engine: Mapping[str, Any], late: Sequence[str]) -> bool:
        snapshot = self._runtime.snapshot
        return (
            self._serving
            and not self._stopping
            and snapshot.plan is not None
            and not self._sources.waiting
            and self._runtime.knows_sequences
            and bool(engine.get("ready"))
            # A node that joins others waits until it can issue what they issue. Later it goes on without a key: decisions
            # are made without one.
            and not (self._keys is not None and self._keys.is_joining)
            and not late
        )

    def report(self) -> ReadinessReport:
        """Tell how the node stands.

        Returns:
            The report.
        """
        snapshot = self._runtime.snapshot
        engine = self._engine()
        problems: list[str] = []
        if self._stopping:
            problems.append("stopping")
        elif not self._serving:
            problems.append("starting")
        if snapshot.plan is None:
            problems.append("no bundle is loaded")
        if snapshot.trust is None:
            problems.append("no keys are loaded")
        problems.extend(self._sources.problems())
        problems.extend(str(problem) for problem in engine.get("problems", ()))
        # Decisions are made without them.
        problems.extend(problem for part in self._more.values() for problem in part.problems())
        late = self._late()
        problems.extend(late)
        ready = self._is_ready(engine, late)
        if self._keys is not None:
            problems.extend(self._keys.problems())
        if snapshot.refused:
            problems.append("the last reload was refused")
        if self._insecure:
            problems.append("insecure_dev: " + ", ".join(self._insecure))
        observing = [
            told(entry, self._clock())
            for entry in (snapshot.plan.observing if snapshot.plan is not None else ())
        ]
        problems.extend(
            f"mode: {entry['scope']} {entry['name']}".rstrip()
            + f" observes until {entry['until']}, then denials are enforced ({entry['owner']})"
            for entry in observing
            if entry["ends_soon"]
        )
        detail = {
            "ready": ready,
            "problems": problems,
            "version": self._version,
            "build_profile": self._profile,
            "started_at": _time(self.started_at),
            "bundle": {
                "name": snapshot.plan.name,
                "revision": snapshot.plan.revision,
                "digest": snapshot.plan.digest,
                "policies": snapshot.plan.policy_count,
                "operations": snapshot.plan.operation_count,
                "loaded_at": _time(snapshot.loaded_at),
                "rules": asdict(snapshot.rules),
                "warnings": [str(warning) for warning in snapshot.plan.warnings[:20]],
            }
            if snapshot.plan is not None
            else None,
            "trust": {
                "revision": snapshot.trust.revision,
                "warnings": list(snapshot.trust.warnings[:20]),
                "sources": self._sources.detail(),
            }
            if snapshot.trust is not None
            else None,
            "last_reload_refused": [str(diagnostic) for diagnostic in snapshot.refused[:20]],
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
        return ReadinessReport(ready, tuple(problems), detail)


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
