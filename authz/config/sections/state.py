"""`state`: the store of tasks and revocations."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import Field

from authz.config.findings import Finding
from authz.config.types import Duration, FilePath, Secret, Strict, Text

__all__ = ["State", "StateEngine", "state_findings"]


_MAX_DEFAULT_POLL: Final = 0.2


class StateEngine(StrEnum):
    """Kind of the store."""

    EMBEDDED = "embedded"
    POSTGRESQL = "postgresql"
    MEMORY = "memory"


class State(Strict):
    """The store of tasks and revocations."""

    engine: StateEngine = StateEngine.EMBEDDED
    """`embedded`: a folder of this node alone, which survives a crash. `postgresql`: a database that several nodes share.
    `memory`: nothing outlives the process."""
    path: FilePath | None = None
    """Folder of the embedded store. Default: `state` beside the audit file."""
    dsn: Annotated[Text | None, Secret()] = None
    """Connection string of the PostgreSQL database: `postgresql://user@host/name?sslmode=verify-full&sslrootcert=…`, or
    libpq's `key=value` form; a secret. A host that is neither a socket nor loopback needs `sslrootcert` or
    `sslmode=disable`."""
    connections: int = Field(default=8, ge=1, le=1_000)
    """Connections to the database that answer requests."""
    max_wait: Annotated[Duration, Field(ge=0.001, le=60)] = 2.0
    """Longest wait for the store, if the caller's deadline is later. After that: deny."""
    revocation_staleness: Annotated[Duration, Field(ge=0.001, le=300)] = 1.0
    """Greatest age of a node's view of revocations on other nodes. Beyond it, the node denies and is not ready."""
    poll_interval: Annotated[Duration, Field(ge=0.001, le=150)] | None = None
    """Interval at which a node reads the changes of other nodes in a shared database if no notice of the database makes it read
    them earlier. Each reading confirms that the node's view is current. At most half of `revocation_staleness`. Default: a fifth
    of `revocation_staleness`, at most 200ms."""
    report_within: Annotated[Duration, Field(ge=0.001, le=86_400)] = 60.0
    """Time after which a permitted operation without a report counts as done."""
    retention: Annotated[Duration, Field(ge=1, le=31_622_400)] = 86_400.0
    """Time for which ended tasks are kept; after that they are unknown."""
    max_tasks: int = Field(default=250_000, ge=1, le=10_000_000)
    """Most tasks, live and ended. One more: OVERLOADED."""
    max_tasks_per_agent: int = Field(default=10_000, ge=1, le=1_000_000)
    """Most live tasks of one agent. One more: OVERLOADED."""
    max_tasks_per_session: int = Field(default=1_000, ge=1, le=1_000_000)
    """Most tasks of one tree, live and ended. One more: OVERLOADED."""

    @property
    def poll(self) -> float:
        """Seconds of `poll_interval`, or its default."""
        if self.poll_interval is not None:
            return self.poll_interval
        return min(_MAX_DEFAULT_POLL, self.revocation_staleness / 5)

    def engine_settings(self) -> dict[str, Any]:
        """Return the engine's settings of the store, but for its default folder, the node's name and the clocks."""
        return {
            "engine": self.engine.value,
            "path": self.path,
            "dsn": self.dsn,
            "connections": self.connections,
            "max_wait_ms": round(self.max_wait * 1000),
            "poll_interval_ms": max(1, round(self.poll * 1000)),
            "revocation_staleness_ms": round(self.revocation_staleness * 1000),
            "report_within_ms": round(self.report_within * 1000),
            "retention_ms": round(self.retention * 1000),
            "max_tasks": self.max_tasks,
            "max_tasks_per_agent": self.max_tasks_per_agent,
            "max_tasks_per_session": self.max_tasks_per_session,
        }


def state_findings(state: State) -> Iterator[Finding]:
    """Yield errors of `state` that the types cannot express."""
    if state.engine is StateEngine.POSTGRESQL and state.dsn is None:
        yield Finding(
            ("state", "engine"),
            "`state.engine: postgresql` has no `dsn`.",
            "Add `state: {dsn: ...}`, or the variable AUTHZ_STATE_DSN.",
        )
    if state.engine is not StateEngine.POSTGRESQL and state.dsn is not None:
        yield Finding(
            ("state", "dsn"),
            f"`state.dsn` is given, but `state.engine` is `{state.engine}`: tasks would not be shared.",
            "Write `engine: postgresql`, or remove `dsn`.",
        )
    if state.poll_interval is not None and state.engine is not StateEngine.POSTGRESQL:
        yield Finding(
            ("state", "poll_interval"),
            f"`state.poll_interval` is given, but `state.engine` is `{state.engine}`, which no other node changes.",
            "Write `engine: postgresql`, or remove `poll_interval`.",
        )
    elif state.poll_interval is not None and state.poll_interval > state.revocation_staleness / 2:
        yield Finding(
            ("state", "poll_interval"),
            f"`state.poll_interval` is {state.poll_interval:g} s, more than half of `state.revocation_staleness` "
            f"({state.revocation_staleness:g} s): one late answer of the database would make the node deny every call.",
            "Shorten `poll_interval`, or lengthen `revocation_staleness`.",
        )
    if state.engine is not StateEngine.EMBEDDED and state.path is not None:
        yield Finding(
            ("state", "path"),
            f"`state.path` is given, but `state.engine` is `{state.engine}`.",
            "Write `engine: embedded`, or remove `path`.",
        )
