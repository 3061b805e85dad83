"""Status of the ways in which people answer approvals, for readiness and `authz status`."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from authz.config import Config
from authz.server.runtime_state import RuntimeState

__all__ = ["ApprovalWays"]

_MOST_SHOWN: Final = 5
_CONFIRM: Final = "confirm"
"""The kind that `approvals.ciba` asks for. Only the subject of a call confirms it."""


class ApprovalWays:
    """Reports whether people can answer the step-ups of the bundle on this node.

    Args:
        config: The configuration.
        runtime: The loaded bundle.
    """

    def __init__(self, config: Config, runtime: RuntimeState) -> None:
        approvals = config.approvals
        self._runtime = runtime
        self._has_page = config.listeners.approvals is not None
        self._url = approvals.base_url
        self._ways = {
            "login": self._has_page and approvals.login is not None,
            "passkeys": self._has_page and approvals.passkeys is not None,
            "people": len(approvals.people),
        }
        self._has_ciba = approvals.ciba is not None

    def problems(self) -> Iterable[str]:
        """Return one line if calls can wait for a person but no person can answer."""
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        # With a URL, people answer at the page of another node.
        if any(self._ways.values()) or self._url:
            return
        kinds = [kind for kind in self._kinds() if not self._asks_at_a_device(kind)]
        if not kinds:
            return
        shown = ", ".join(kinds[:_MOST_SHOWN])
        yield (
            f"approvals: rules of the bundle wait for a person ({shown}), and nobody can answer: set `approvals.people`, or "
            "`listeners.approvals` with a login or passkeys; or `approvals.url`, if another node serves the page"
        )

    def _asks_at_a_device(self, kind: str) -> bool:
        """Return whether the issuer asks a person about calls of this kind, at a device of theirs."""
        return self._has_ciba and kind == _CONFIRM

    def detail(self) -> dict[str, Any]:
        """Return the ways as JSON values."""
        return {"url": self._url, **self._ways, "ciba": self._has_ciba, "kinds": self._kinds()}

    def _kinds(self) -> list[str]:
        plan = self._runtime.snapshot.plan
        return list(plan.person_kinds) if plan is not None else []
