"""`limits` and `envoy`: what one node may use, and how Envoy is answered."""

from collections.abc import Iterator
from typing import Annotated, Any, Final

from pydantic import Field

from authz.config.findings import Finding
from authz.config.sections.listeners import Lane, Listeners
from authz.config.types import Duration, Strict

__all__ = ["Envoy", "Limits", "limit_findings"]

_MAX_FAST_THREADS: Final = 1024


class Envoy(Strict):
    """Answers to Envoy's `Authorization`."""

    error_response: bool = False
    """Answer internal errors, time-outs and overload with `error_response` instead of a denial. The proxy's `failure_mode_allow` then
    decides, and may let the request pass.
    """


class Limits(Strict):
    """Limits of one node. A request over a limit is denied with the limit's own reason code."""

    threads: int = Field(default=4, ge=1, le=64)
    """Threads of each listener of the Python lane that decide; more than 8 seldom helps."""
    queue: int = Field(default=256, ge=1, le=65_536)
    """Most calls of one listener of the Python lane that wait for a thread. One more: OVERLOADED."""
    connections: int = Field(default=1024, ge=16, le=1_000_000)
    """Connections of one listener, or its share of the files that the process may open, if that is less. One more is closed. Of the
    connections that others leave, one peer may have half. A peer is an IP address (of IPv6 the /64 network) or the user at a unix
    socket, and on the fast lane the identity in a client certificate.
    """
    handshake_timeout: Annotated[Duration, Field(ge=0.1, le=60)] = 5.0
    """Longest time of a TLS handshake and the start of HTTP/2."""
    idle_timeout: Annotated[Duration, Field(ge=1, le=86_400)] = 300.0
    """A connection without a call for so long is closed; its caller opens another one."""
    unreceived_calls: int = Field(default=64, ge=4, le=4096)
    """Calls of one listener of the Python lane whose messages are received at once, each of 16 MiB at most. Others wait. Of the places that
    others leave, one peer may have half: the identity in a client certificate, or an IP address. All callers of a unix socket are one
    peer. A receipt whose place others wait for is given up after 100ms: OVERLOADED.
    """
    max_message_bytes: int = Field(default=1_048_576, ge=4096, le=8_388_608)
    """Largest request. A larger one: BAD_INPUT."""
    max_concurrent_streams: int = Field(default=1024, ge=16, le=65_536)
    """Calls in flight on one connection."""
    receive_timeout: Annotated[Duration, Field(ge=0.1, le=60)] = 5.0
    """A call whose message has not arrived by then, counted from the arrival of its headers, is denied: DEADLINE."""
    default_deadline: Annotated[Duration, Field(ge=0.01, le=60)] = 2.0
    """Deadline of a call that has none."""
    max_arguments_bytes: int = Field(default=262_144, ge=256, le=8_388_608)
    """Longest arguments. Longer ones: BAD_INPUT."""
    max_token_bytes: int = Field(default=8192, ge=512, le=65_536)
    """Longest credential."""
    token_cache: int = Field(default=65_536, ge=0, le=10_000_000)
    """Size of the cache of verified tokens, and of that of certificates."""
    probe_rate: int = Field(default=100, ge=0, le=1_000_000)
    """Requests in mode PROBE a second, of one caller."""
    probe_burst: int = Field(default=200, ge=0, le=1_000_000)
    """Requests in mode PROBE that one caller may send at once."""
    ready_after: Annotated[Duration, Field(ge=0.1, le=60)] = 1.0
    """The node is not ready while three probes in a row of one listener waited longer than this for the threads that answer."""
    access_log_streams: int = Field(default=64, ge=1, le=1024)
    """Open streams of access logs on one listener, each with a thread of its own. One more: OVERLOADED. An Envoy opens one for each of its
    worker threads.
    """
    fast_threads: int = Field(default=2, ge=1, le=256)
    """Threads of each listener of the fast lane. All listeners together may have 1,024."""
    fast_concurrency: int = Field(default=2048, ge=1, le=1_000_000)
    """Calls in flight on one listener of the fast lane, with or without their message. One more: OVERLOADED. Of the calls that others leave,
    one peer may have half.
    """
    bundle_max_bytes: int = Field(default=67_108_864, ge=1024, le=1_073_741_824)
    """Largest bundle, all files together."""
    bundle_max_files: int = Field(default=10_000, ge=1, le=1_000_000)
    """Most files of a bundle."""

    def engine_settings(self) -> dict[str, Any]:
        """Return the engine's limits."""
        return {
            "max_message_bytes": self.max_message_bytes,
            "max_arguments_bytes": self.max_arguments_bytes,
            "max_token_bytes": self.max_token_bytes,
            "token_cache_size": self.token_cache,
            "probe_rate": self.probe_rate,
            "probe_burst": self.probe_burst,
        }

    def fast_lane_settings(self) -> dict[str, Any]:
        """Return the limits of the fast lane, but for `connections`, which depends on the files that may be open."""
        return {
            "workers": self.fast_threads,
            "concurrency": self.fast_concurrency,
            "max_streams": self.max_concurrent_streams,
            "receive_timeout_ms": round(self.receive_timeout * 1000),
            "handshake_timeout_ms": round(self.handshake_timeout * 1000),
            "idle_timeout_ms": round(self.idle_timeout * 1000),
            "ready_after_ms": round(self.ready_after * 1000),
        }


def limit_findings(limits: Limits, listeners: Listeners) -> Iterator[Finding]:
    """Yield errors of `limits` that the types cannot express."""
    fast = [name for name, served in listeners.decisions.items() if served.lane is Lane.FAST]
    each = limits.fast_threads
    if len(fast) * each > _MAX_FAST_THREADS:
        yield Finding(
            ("limits", "fast_threads"),
            f"{len(fast)} listeners of the fast lane with {each} threads each have {len(fast) * each} threads.",
            f"Give them {_MAX_FAST_THREADS} at most, for example `fast_threads: 2`.",
        )
