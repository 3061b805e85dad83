"""Status of the trust sources, for readiness, metrics and `authz status`."""

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from authz.config import Config
from authz.model import MetricFamily, MetricKind
from authz.server.runtime_state import RuntimeState
from authz.trust import Refresher, SourceKey, SourceStatus, place_of

__all__ = ["TrustSourceStatus"]

_MAX_SHOWN: Final = 100


class TrustSourceStatus:
    """Reports on each source: its keys, from the runtime state, and its fetches, from the refresh.

    Args:
        config: The configuration.
        runtime: Has the keys that serve.
        refresher: Fetches some of the sources.
        clock: Unix time.
    """

    def __init__(
        self,
        config: Config,
        runtime: RuntimeState,
        refresher: Refresher,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._runtime = runtime
        self._refresher = refresher
        self._clock = clock
        trust = config.trust
        self._keys = (
            *(SourceKey("domain", name) for name in trust.domains),
            *(SourceKey("issuer", alias) for alias in trust.issuers),
        )

    @property
    def waiting(self) -> tuple[SourceKey, ...]:
        """Sources that were not fetched yet."""
        return tuple(status.key for status in self._refresher.statuses() if status.age is None)

    def problems(self) -> tuple[str, ...]:
        """Return one line for each source with a problem."""
        return tuple(self._problems())[:_MAX_SHOWN]

    def _problems(self) -> Iterator[str]:
        for status in self._refresher.statuses():
            reason = f" ({status.error})" if status.error else ""
            if status.age is None:
                yield f"the keys of {status.key} were not fetched yet{reason}"
            elif status.stale:
                yield f"the keys of {status.key} are too old and were dropped{reason}"
            elif status.error:
                yield f"the keys of {status.key} were not refreshed{reason}"
        usable = self._usable()
        for key in sorted(self._runtime.snapshot.older):
            serves = "one" if usable.get(key) else "none"
            yield (
                f"the bundle of {key} is older than an earlier one in use, and was refused: "
                f"{serves} serves"
            )
        yield from self._runtime.problems()

    def detail(self) -> list[dict[str, Any]]:
        """Return each source as JSON values."""
        fetched = {status.key: status for status in self._refresher.statuses()}
        usable, age = self._usable(), self._age(fetched)
        return [
            {
                "kind": key.kind,
                "name": key.name,
                "from": place_of(self._config, key),
                "keys": usable.get(key, 0),
                "age_seconds": round(age[key], 3) if key in age else None,
                "stale": key in fetched and fetched[key].stale,
                "error": fetched[key].error if key in fetched else "",
            }
            for key in self._keys
        ]

    def families(self) -> Iterator[MetricFamily]:
        """Yield every metric; labels are names of the configuration."""
        fetched = {status.key: status for status in self._refresher.statuses()}
        usable, age = self._usable(), self._age(fetched)

        def gauge(name: str, text: str, values: dict[SourceKey, float]) -> MetricFamily:
            samples = tuple((name, {"kind": k.kind, "name": k.name}, v) for k, v in values.items())
            return MetricFamily(name, text, MetricKind.GAUGE, samples)

        yield gauge(
            "authz_trust_source_keys",
            "Usable keys and authorities of a trust source.",
            {key: float(usable.get(key, 0)) for key in self._keys},
        )
        yield gauge(
            "authz_trust_source_usable",
            "1 where a trust source has a usable key, else 0: then its credentials are refused.",
            {key: float(usable.get(key, 0) > 0) for key in self._keys},
        )
        yield gauge(
            "authz_trust_source_age_seconds",
            "Time since the keys of a trust source were last known to be those of the source.",
            age,
        )
        yield MetricFamily(
            "authz_trust_source_refresh",
            "Attempts to fetch the keys of a trust source.",
            MetricKind.COUNTER,
            tuple(
                (
                    "authz_trust_source_refresh_total",
                    {"kind": key.kind, "name": key.name, "result": str(outcome)},
                    float(count),
                )
                for key, status in fetched.items()
                for outcome, count in status.counts.items()
            ),
        )

    def _usable(self) -> dict[SourceKey, int]:
        trust = self._runtime.snapshot.trust
        if trust is None:
            return {}
        return {
            **{SourceKey("domain", d.name): d.keys + d.authorities for d in trust.domains},
            **{SourceKey("issuer", i.alias): i.keys for i in trust.issuers},
        }

    def _age(self, fetched: dict[SourceKey, SourceStatus]) -> dict[SourceKey, float]:
        read = max(0.0, self._clock() - self._runtime.snapshot.files_read_at)
        ages = {}
        for key in self._keys:
            age = fetched[key].age if key in fetched else read
            if age is not None:
                ages[key] = age
        return ages
