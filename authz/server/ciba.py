"""Runs the second channel of approvals (`approvals.ciba`) on a node, and counts its requests."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from authz.approvals import ApprovalHub, ApprovalStore, Subscription
from authz.approvals.card import CardReferences
from authz.approvals.ciba import RESULTS, CibaChannel, CibaClient, CibaSettings
from authz.config import Ciba, CibaTier, Config
from authz.model import MetricFamily, MetricKind
from authz.telemetry import Logger
from authz.trust import FetchDocument, SourceKey, discovery_request
from authz_client.v1 import approvals_pb2, decision_pb2

__all__ = ["CibaService"]

_TIERS: Final = {
    CibaTier.LOW: frozenset({decision_pb2.TIER_LOW}),
    CibaTier.STANDARD: frozenset({decision_pb2.TIER_LOW, decision_pb2.TIER_STANDARD}),
}


class CibaService:
    """Lets the configured issuer ask people about approvals.

    Args:
        config: The configuration.
        ciba: `approvals.ciba` of the configuration.
        store: Reads and answers approvals.
        hub: Source of changes of approvals.
        get: Fetches documents of the issuer.
        keys: Returns the keys of an issuer in use.
        references: Returns the values with which a card compares the values of a call.
        log: Receives the ends of requests.
        clock: Unix time.
    """

    def __init__(
        self,
        config: Config,
        ciba: Ciba,
        store: ApprovalStore,
        hub: ApprovalHub,
        *,
        get: FetchDocument,
        keys: Callable[[SourceKey], str | None],
        references: Callable[[approvals_pb2.Approval], CardReferences],
        log: Logger,
        clock: Callable[[], float] = time.time,
    ) -> None:
        key = SourceKey("issuer", ciba.issuer)
        settings = _settings(config, ciba)
        client = CibaClient(settings, get, lambda: keys(key), clock)
        self._channel = CibaChannel(settings, client, store, references, log, clock=clock)
        self._hub = hub
        self._subscription = Subscription(self._channel.changed)

    def start(self) -> None:
        """Start the thread."""
        self._channel.start()
        self._hub.subscribe(self._subscription)

    def close(self) -> None:
        """Stop the thread."""
        self._hub.unsubscribe(self._subscription)
        self._channel.close()

    def families(self) -> Iterator[MetricFamily]:
        """Yield every metric."""
        counts = self._channel.counts()
        yield MetricFamily(
            "authz_approval_ciba",
            "Requests to the issuer to ask a person, by result.",
            MetricKind.COUNTER,
            tuple(
                ("authz_approval_ciba_total", {"result": result}, float(counts[result]))
                for result in RESULTS
            ),
        )
        yield MetricFamily(
            "authz_approval_ciba_open",
            "Requests to the issuer that wait for a person.",
            MetricKind.GAUGE,
            (("authz_approval_ciba_open", {}, float(self._channel.open())),),
        )


def _settings(config: Config, ciba: Ciba) -> CibaSettings:
    issuer = config.trust.issuers[ciba.issuer]
    return CibaSettings(
        alias=ciba.issuer,
        issuer=issuer.issuer,
        algorithms=issuer.algorithms,
        claims=issuer.claims,
        client_id=ciba.client_id,
        client_secret_file=ciba.client_secret_file or "",
        description=replace(
            discovery_request(issuer, config.trust.refresh), accept="application/json"
        ),
        login_hint=ciba.login_hint,
        acr_values=ciba.acr_values,
        tiers=_TIERS[ciba.tier_cap],
        leeway=config.trust.leeway,
    )
