"""Targets of sinks, and errors of deliveries."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from authz.audit.delivery.batch import Batch
from authz.files import PrivateFileError, read_secret
from authz.trust.fetch import FetchError

__all__ = [
    "DeliveryError",
    "DeliveryErrorKind",
    "Rejection",
    "Target",
    "error_of",
    "read_authorization",
]

_TOO_LARGE = 413
_WAIT = frozenset({408, 425, 429})


class DeliveryErrorKind(StrEnum):
    """Kind of a failed delivery, a label of metrics."""

    UNREACHABLE = "unreachable"
    """No answer."""
    SERVER = "server"
    """The sink cannot take the batch now (5xx, 429)."""
    REFUSED = "refused"
    """The sink refuses the batch (other statuses): somebody has to change something."""
    TOO_LARGE = "too_large"
    """The batch is too large (413); it is sent again in halves."""
    CREDENTIAL = "credential"
    """A file of the node's credentials cannot be read."""
    LOG = "log"
    """The log cannot be read."""
    CURSOR = "cursor"
    """The cursor cannot be written; nothing is sent before it can."""
    INTERNAL = "internal"
    """An unexpected error."""


class DeliveryError(Exception):
    """A batch was not delivered. The message says why, without a byte of the batch.

    Args:
        kind: Kind of the error.
        message: The reason.
        retry_after: Seconds for which the target does not want to be asked again. Default: the target names no time.
    """

    def __init__(
        self, kind: DeliveryErrorKind, message: str, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Rejection:
    """Lines of an acknowledged batch that the target did not take, and will never take."""

    records: int
    """Number of the lines."""
    reason: str
    """Answer of the target."""


class Target(Protocol):
    """A place that takes batches."""

    def send(self, batch: Batch) -> Rejection | None:
        """Send a batch, and return once it is acknowledged.

        Returns:
            Lines that were rejected for good; `None` if no line was rejected.

        Raises:
            DeliveryError: It is not acknowledged. The target may have it all the same.
        """


def error_of(error: FetchError) -> DeliveryError:
    """Return the failed delivery of a request that failed."""
    status = error.status
    if status is None:
        kind = DeliveryErrorKind.UNREACHABLE
    elif status == _TOO_LARGE:
        kind = DeliveryErrorKind.TOO_LARGE
    elif status >= 500 or status in _WAIT:
        kind = DeliveryErrorKind.SERVER
    else:
        kind = DeliveryErrorKind.REFUSED
    return DeliveryError(kind, str(error), error.retry_after)


def read_authorization(file: str | None) -> str | None:
    """Read the value of an `authorization` header; None without a file.

    Raises:
        DeliveryError: The file cannot be read.
    """
    if file is None:
        return None
    try:
        return read_secret(file)
    except PrivateFileError as error:
        raise DeliveryError(DeliveryErrorKind.CREDENTIAL, str(error)) from error
