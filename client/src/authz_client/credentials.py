"""Where a credential comes from: a text, a function, a file that is read again when it changes, the Workload API.

A source is asked for each call, so that a credential that was renewed is used from then on. One that cannot give a
credential ends the call: nothing is asked for without it.
"""

import asyncio
import inspect
import os
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Final, Protocol, TypeAlias, cast, final, runtime_checkable

from authz_client.base_errors import UsageError
from authz_client.errors import Unavailable

__all__ = ["Credentials", "TokenFile", "TokenSource", "WorkloadToken", "source_of"]

_MOST_BYTES: Final = 65_536
_FRESH_SHARE: Final = 0.5
_SHORTEST: Final = 1.0


@runtime_checkable
class TokenSource(Protocol):
    """Gives a credential."""

    def token(self, timeout: float) -> str:
        """Give it, on the caller's thread.

        Args:
            timeout: Seconds that it may take.
        """

    async def atoken(self, timeout: float) -> str:  # noqa: ASYNC109 - the source may block
        """Give it without blocking the event loop.

        Args:
            timeout: Seconds that it may take.
        """


Credentials: TypeAlias = (
    str | os.PathLike[str] | Callable[[], str] | Callable[[], Awaitable[str]] | TokenSource
)
"""A token, the path of a file that holds one, a function that gives one, or a source."""


def _checked(token: object) -> str:
    """Return a token, without white space at its ends; refuse a value that cannot be a token."""
    if not isinstance(token, str):
        raise Unavailable.of(
            "the source of the credential gave no text", reason_code="NO_CREDENTIAL"
        )
    token = token.strip()
    if not token or len(token) > _MOST_BYTES or not token.isascii() or not token.isprintable():
        raise Unavailable.of("the source gave no credential", reason_code="NO_CREDENTIAL")
    return token


@final
class _Fixed:
    def __init__(self, token: str) -> None:
        self._token = _checked(token)

    def token(self, timeout: float) -> str:
        del timeout
        return self._token

    async def atoken(self, timeout: float) -> str:  # noqa: ASYNC109 - part of the protocol
        del timeout
        return self._token


@final
class _Function:
    def __init__(self, give: Callable[[], object]) -> None:
        self._give = give
        self._is_async = inspect.iscoroutinefunction(give) or inspect.iscoroutinefunction(
            getattr(give, "__call__", None)  # noqa: B004 - looks at the method, does not ask for it
        )

    def token(self, timeout: float) -> str:
        del timeout
        if self._is_async:
            raise UsageError("credentials by an async function serve only async calls")
        return _checked(_called(self._give))

    async def atoken(self, timeout: float) -> str:  # noqa: ASYNC109 - the function may block
        async def give() -> object:
            if self._is_async:
                return await cast("Callable[[], Awaitable[object]]", self._give)()
            return await asyncio.to_thread(self._give)

        try:
            return _checked(await asyncio.wait_for(give(), timeout))
        except (Unavailable, UsageError):
            raise
        except Exception as error:
            raise _failed(error) from error


def _called(give: Callable[[], object]) -> object:
    try:
        return give()
    except Exception as error:
        raise _failed(error) from error


def _failed(error: Exception) -> Unavailable:
    what = f"the source of the credential failed: {type(error).__name__}"
    return Unavailable.of(what, reason_code="NO_CREDENTIAL")


@final
class TokenFile:
    """A file that holds one token, such as a JWT-SVID that an agent's helper renews.

    It is looked at for each call, and read where it has changed.

    Args:
        path: The file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._read: tuple[tuple[int, int, int], str] | None = None

    def token(self, timeout: float) -> str:
        """Give the token as it now stands in the file.

        Args:
            timeout: Not needed.

        Returns:
            The token.

        Raises:
            Unavailable: The file cannot be read, or holds none.
        """
        del timeout
        try:
            with self._path.open("rb") as stream:
                stands = os.fstat(stream.fileno())
                state = (stands.st_ino, stands.st_mtime_ns, stands.st_size)
                known = self._read
                if known is not None and known[0] == state:
                    return known[1]
                token = _checked(stream.read(_MOST_BYTES + 1).decode("ascii"))
        except (OSError, ValueError) as error:
            what = f"{self._path} gives no credential: {type(error).__name__}"
            raise Unavailable.of(what, reason_code="NO_CREDENTIAL") from error
        self._read = (state, token)
        return token

    async def atoken(self, timeout: float) -> str:  # noqa: ASYNC109 - part of the protocol
        """Give the token as it now stands in the file.

        Args:
            timeout: Not needed.

        Returns:
            The token.

        Raises:
            Unavailable: The file cannot be read, or holds none.
        """
        return self.token(timeout)


@final
class WorkloadToken:
    """A JWT-SVID from the SPIFFE Workload API, fetched again after half of its life; needs the extra `workload`.

    Args:
        audience: Its `aud`: one of the server's `identity.audiences`.
        socket: `unix:///path`; default: `SPIFFE_ENDPOINT_SOCKET`.

    Raises:
        UsageError: The extra is not installed.
    """

    def __init__(self, audience: str, socket: str | None = None) -> None:
        try:
            import spiffe  # noqa: F401, PLC0415 - an extra
        except ImportError as error:
            message = "the Workload API needs an extra: pip install authz-client[workload]"
            raise UsageError(message) from error
        self._audience = audience
        self._socket = socket
        self._lock = threading.Lock()
        self._held: tuple[str, float] | None = None

    def token(self, timeout: float) -> str:
        """Give an SVID that is not past half of its life.

        Args:
            timeout: Seconds that the Workload API may take.

        Returns:
            The token.

        Raises:
            Unavailable: The Workload API gives none.
        """
        held = self._held
        if held is not None and time.time() < held[1]:
            return held[0]
        if not self._lock.acquire(timeout=max(0.0, timeout)):
            raise Unavailable.of("the Workload API is slow", reason_code="NO_CREDENTIAL")
        try:
            held = self._held
            if held is not None and time.time() < held[1]:
                return held[0]
            token, expiry = self._fetch(timeout)
            now = time.time()
            self._held = (token, now + max(_SHORTEST, (expiry - now) * _FRESH_SHARE))
            return token
        finally:
            self._lock.release()

    async def atoken(self, timeout: float) -> str:  # noqa: ASYNC109 - its client blocks
        """Give an SVID that is not past half of its life.

        Args:
            timeout: Seconds that the Workload API may take.

        Returns:
            The token.

        Raises:
            Unavailable: The Workload API gives none.
        """
        held = self._held
        if held is not None and time.time() < held[1]:
            return held[0]
        try:
            return await asyncio.wait_for(asyncio.to_thread(self.token, timeout), timeout)
        except TimeoutError as error:
            what = "the Workload API is slow"
            raise Unavailable.of(what, reason_code="NO_CREDENTIAL") from error

    def _fetch(self, timeout: float) -> tuple[str, float]:
        import spiffe  # noqa: PLC0415 - an extra
        from spiffe.errors import PySpiffeError  # noqa: PLC0415

        try:
            with closing(spiffe.WorkloadApiClient(self._socket, default_timeout=timeout)) as client:
                svid = client.fetch_jwt_svid(audience={self._audience})
        except PySpiffeError as error:
            raise _failed(error) from error
        return _checked(svid.token), float(svid.expiry)


def source_of(credentials: Credentials) -> TokenSource:
    """Make a source.

    Args:
        credentials: Value of the option `credentials`.

    Returns:
        The source.

    Raises:
        UsageError: It is nothing of the kind.
    """
    if isinstance(credentials, TokenSource):
        return credentials
    if isinstance(credentials, str):
        return _Fixed(credentials)
    if isinstance(credentials, os.PathLike):
        return TokenFile(credentials)
    if callable(credentials):
        return _Function(credentials)
    raise UsageError(f"credentials must be a text, path, function or source: {type(credentials)}")
