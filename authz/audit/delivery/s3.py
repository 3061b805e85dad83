"""A target that stores batches as objects of an S3-compatible store. botocore signs the requests (Signature Version 4)."""

import base64
import configparser
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from authz.audit.delivery.batch import Batch
from authz.audit.delivery.http import WebPlace, pack
from authz.audit.delivery.target import DeliveryError, DeliveryErrorKind, Rejection, error_of
from authz.files import PrivateFileError, read_private
from authz.trust.fetch import Document, FetchError, FetchRequest, Post

__all__ = ["ObjectLock", "S3Place", "S3Target"]

_MAX_CREDENTIALS: Final = 65_536
_NEVER_IN_KEYS: Final = re.compile(r"[^0-9A-Za-z._-]+")
_TYPE: Final = "application/gzip"


@dataclass(frozen=True, slots=True)
class ObjectLock:
    """Lock of each object, so that nobody can remove or replace it."""

    mode: str
    """`GOVERNANCE` or `COMPLIANCE`."""
    seconds: float
    """Time for which an object is locked after its delivery."""


@dataclass(frozen=True, slots=True)
class S3Place:
    """A bucket."""

    server: WebPlace
    """The store."""
    bucket: str
    """Name of the bucket."""
    region: str
    """Region that requests are signed for."""
    prefix: str
    """Prefix of keys, for example `authz/`."""
    credentials_file: str
    """File with the access key, in the form of AWS' shared credentials file."""
    profile: str = "default"
    """Section of the file."""
    lock: ObjectLock | None = None
    """Lock of objects. None: objects are not locked by the node."""


class S3Target:
    """Stores batches in a bucket: compressed, each under the name of the batch.

    Args:
        place: The bucket.
        node: Name of the node, which is a part of each key.
        fetch: Sends a request.
        clock: Unix time.

    Raises:
        ImportError: The extra `s3` is not installed.
    """

    def __init__(
        self,
        place: S3Place,
        node: str,
        fetch: Callable[[FetchRequest], Document],
        clock: Callable[[], float],
    ) -> None:
        from botocore.auth import S3SigV4Auth  # noqa: PLC0415 - an extra
        from botocore.awsrequest import AWSRequest  # noqa: PLC0415
        from botocore.credentials import Credentials  # noqa: PLC0415

        self._auth, self._request, self._credentials = S3SigV4Auth, AWSRequest, Credentials
        self._place = place
        self._node = _NEVER_IN_KEYS.sub("_", node)
        self._fetch = fetch
        self._clock = clock

    def send(self, batch: Batch) -> Rejection | None:
        """Store a batch; see `Target`. A batch that is repeated replaces its object by the same bytes."""
        body = pack(batch.content)
        url = self._url(f"{self._place.prefix}{self._node}/{batch.name}.gz")
        request = self._request(method="PUT", url=url, data=body, headers=self._headers(body))
        self._auth(self._read_credentials(), "s3", self._place.region).add_auth(request)
        headers = tuple((name.lower(), str(value)) for name, value in request.headers.items())
        sent = tuple(header for header in headers if header[0] not in {"content-type", "host"})
        post = Post(body, _TYPE, sent, method="PUT")
        try:
            self._fetch(self._place.server.request(post, url=url))
        except FetchError as error:
            raise error_of(error) from error
        return None

    def _url(self, key: str) -> str:
        return f"{self._place.server.url.rstrip('/')}/{self._place.bucket}/{key}"

    def _headers(self, body: bytes) -> dict[str, str]:
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        headers = {
            "content-type": _TYPE,
            "x-amz-checksum-sha256": digest,
            "x-amz-sdk-checksum-algorithm": "SHA256",
        }
        lock = self._place.lock
        if lock is not None:
            until = datetime.fromtimestamp(self._clock(), UTC) + timedelta(seconds=lock.seconds)
            headers["x-amz-object-lock-mode"] = lock.mode
            headers["x-amz-object-lock-retain-until-date"] = until.strftime("%Y-%m-%dT%H:%M:%SZ")
        return headers

    def _read_credentials(self) -> Any:
        """Read the access key. It is read for each request, so that it can be renewed."""
        file, profile = self._place.credentials_file, self._place.profile
        try:
            content, _ = read_private(file, "access key", _MAX_CREDENTIALS, root_group=True)
            parser = configparser.RawConfigParser()
            parser.read_string(content.decode())
            section = parser[profile]
            key, secret = section["aws_access_key_id"], section["aws_secret_access_key"]
        except PrivateFileError as error:
            raise DeliveryError(DeliveryErrorKind.CREDENTIAL, str(error)) from error
        except (configparser.Error, KeyError, ValueError) as error:
            # The error can hold a line of the file.
            text = f"{file} has no section `{profile}` with `aws_access_key_id` and `aws_secret_access_key`"
            raise DeliveryError(DeliveryErrorKind.CREDENTIAL, text) from error
        return self._credentials(key, secret, section.get("aws_session_token"))
