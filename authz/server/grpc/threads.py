"""The threads of one listener of the Python lane: each listener has its own, so that none can stop another."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from authz.config import Limits
from authz.model import MetricFamily, MetricKind
from authz.server.grpc.executor import BoundedExecutor
from authz.server.grpc.health import SideThreads
from authz.server.grpc.receiving import Bounds, Receiver

__all__ = ["ListenerThreads", "thread_families"]


@dataclass(frozen=True, slots=True)
class ListenerThreads:
    """The threads of one listener."""

    name: str
    """Name of the listener."""
    executor: BoundedExecutor
    """Decides."""
    receiver: Receiver
    """Receives messages; grpcio's executor."""
    side: SideThreads
    """Health and reflection."""

    @staticmethod
    def start(
        name: str,
        limits: Limits,
        *,
        failed: Callable[[BaseException], None],
        mutual: bool = False,
        threads: int | None = None,
        queue: int | None = None,
    ) -> "ListenerThreads":
        """Start the threads of a listener.

        Args:
            name: Name of the listener.
            limits: Limits of the node.
            failed: Receives each exception of a call.
            mutual: Callers show certificates.
            threads: Threads that decide. Default: of the limits.
            queue: Calls that may wait. Default: of the limits.
        """
        executor = BoundedExecutor(
            threads or limits.threads,
            queue or limits.queue,
            failed=failed,
            name=name,
        )
        bounds = Bounds(limits.unreceived_calls, limits.receive_timeout)
        receiver = Receiver(executor, bounds, mutual=mutual, failed=failed)
        return ListenerThreads(name, executor, receiver, SideThreads())

    def close(self) -> None:
        """End the threads once the queued calls are done."""
        self.receiver.shutdown(wait=False)
        self.executor.shutdown(wait=False)
        self.side.close()


def thread_families(listeners: Iterable[ListenerThreads]) -> list[MetricFamily]:
    """Return the metrics of the threads of all listeners."""
    listeners = tuple(listeners)

    def samples(
        name: str, read: Callable[[ListenerThreads], float]
    ) -> tuple[tuple[str, dict[str, str], float], ...]:
        return tuple((name, {"listener": listener.name}, read(listener)) for listener in listeners)

    refused = tuple(
        (
            "authz_unreceived_refused_total",
            {"listener": listener.name, "reason": reason},
            float(listener.receiver.refused(reason)),
        )
        for listener in listeners
        for reason in ("DEADLINE", "OVERLOADED")
    )
    gauge, counter = MetricKind.GAUGE, MetricKind.COUNTER
    return [
        MetricFamily(
            "authz_queue_depth",
            "Calls that wait for a thread.",
            gauge,
            samples("authz_queue_depth", lambda listener: float(listener.executor.depth)),
        ),
        MetricFamily(
            "authz_shed",
            "Calls refused because the queue was full.",
            counter,
            samples("authz_shed_total", lambda listener: float(listener.executor.shed)),
        ),
        MetricFamily(
            "authz_unreceived_calls",
            "Calls whose message has not come.",
            gauge,
            samples("authz_unreceived_calls", lambda listener: float(listener.receiver.unreceived)),
        ),
        MetricFamily(
            "authz_unreceived_refused",
            "Calls refused because their message did not come: in time, or while others waited.",
            counter,
            refused,
        ),
        MetricFamily(
            "authz_untaken",
            "Calls cancelled because their callers did not take the answer.",
            counter,
            samples("authz_untaken_total", lambda listener: float(listener.receiver.untaken)),
        ),
    ]
