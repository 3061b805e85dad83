"""A target that takes batches by POST: NDJSON, compressed, with the place of the batch in headers."""

import base64
import gzip
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from authz.audit.delivery.batch import Batch
from authz.audit.delivery.target import Rejection, error_of, read_authorization
from authz.trust.addresses import Reach
from authz.trust.fetch import Document, FetchError, FetchRequest, Post, WebVerifier

__all__ = ["HttpTarget", "WebPlace", "pack"]

_MAX_ANSWER: Final = 1_048_576


@dataclass(frozen=True, slots=True)
class WebPlace:
    """A server that takes batches, and the rules under which it is asked."""

    url: str
    """URL of the server."""
    reach: Reach
    """Addresses that the host may have."""
    ca_file: str | None = None
    """Authorities of the server, PEM. Default: those of the system."""
    timeout: float = 10.0
    """Seconds for one request."""

    def request(
        self, post: Post, *, url: str | None = None, authorization: str | None = None
    ) -> FetchRequest:
        """Return a request to the server."""
        return FetchRequest(
            url or self.url,
            self.reach,
            WebVerifier(self.ca_file),
            self.timeout,
            _MAX_ANSWER,
            "*/*",
            authorization=authorization,
            post=post,
        )


def pack(content: bytes) -> bytes:
    """Compress a content: the same bytes for the same content."""
    return gzip.compress(content, compresslevel=6, mtime=0)


class HttpTarget:
    """Posts batches to a URL.

    Args:
        place: The server.
        node: Name of the node, which the receiver gets.
        authorization_file: File with the value of the `authorization` header. With None, none is sent.
        fetch: Sends a request.
    """

    def __init__(
        self,
        place: WebPlace,
        node: str,
        authorization_file: str | None,
        fetch: Callable[[FetchRequest], Document],
    ) -> None:
        self._place = place
        self._node = node
        self._authorization_file = authorization_file
        self._fetch = fetch

    def send(self, batch: Batch) -> Rejection | None:
        """Post a batch; see `Target`. Every status of success is an acknowledgement."""
        body = pack(batch.content)
        post = Post(body, "application/x-ndjson", tuple(self._headers(batch, body)))
        request = self._place.request(
            post, authorization=read_authorization(self._authorization_file)
        )
        try:
            self._fetch(request)
        except FetchError as error:
            raise error_of(error) from error
        return None

    def _headers(self, batch: Batch, body: bytes) -> list[tuple[str, str]]:
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        headers = [
            ("content-encoding", "gzip"),
            ("content-digest", f"sha-256=:{digest}:"),  # RFC 9530 §2: of the body as it is sent
            ("authz-audit-node", self._node),
            ("authz-audit-kind", str(batch.kind)),
            ("authz-audit-name", batch.name),
            ("authz-audit-records", str(batch.count)),
        ]
        if batch.first is not None and batch.last is not None:
            headers += [
                ("authz-audit-segment", str(batch.first[0])),
                ("authz-audit-first", str(batch.first[1])),
                ("authz-audit-last", str(batch.last[1])),
            ]
        return headers
