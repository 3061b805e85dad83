"""Authentication of HTTP clients by a task credential, for `httpx` and for `httpx2`.

The MCP SDK sends its requests with `httpx` up to its version 1 and with `httpx2` from version 2 on. Both libraries accept only
instances of their own `Auth` class, so the class made here derives from each one that is installed.
"""

import importlib
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from functools import cache
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from authz_client.base_errors import UsageError
from authz_client.issued import TaskCredential

__all__ = ["credential_auth"]

_LIBRARIES: Final = ("httpx", "httpx2")
_USE_NONCE: Final = "use_dpop_nonce"
_UNAUTHORIZED: Final = 401
_READING: Final = (
    "keys",
    "values",
    "items",
    "multi_items",
    "get_list",
    "__getitem__",
    "__contains__",
    "__iter__",
    "__len__",
    "__eq__",
    "__repr__",
)


def credential_auth(
    credential: TaskCredential,
    *,
    header: Literal["authorization", "authz-credential"] = "authorization",
    origin: str | None = None,
) -> Any:
    """Make an authentication handler that shows a task credential with each request, with a new proof each time.

    It works with the synchronous and asynchronous clients of `httpx` and `httpx2`. A server that asks for a nonce
    (RFC 9449 §9) gets it in one more try. If the client follows a redirect within the origin, and the server answers 401 there,
    the credential is shown once more with a proof for the new URL. A redirected request itself never carries the credential.

    Args:
        credential: Credential to show.
        header: `authorization`, or `authz-credential` if `authorization` holds another token.
        origin: Only origin that may see the credential, such as `https://crm.example`. Default: the origin of the first request.

    Returns:
        An instance of `httpx.Auth`, `httpx2.Auth` or both: `httpx.Client(auth=credential_auth(credential))`. A request to
        another origin than `origin` raises `UsageError` and is not sent.

    Raises:
        UsageError: `credential` is not a task credential, `origin` is not an origin, or neither `httpx` nor `httpx2` is
            installed.
    """
    if not isinstance(credential, TaskCredential):
        raise UsageError(
            f"credential_auth takes a TaskCredential, not {type(credential).__name__}: "
            "a leased secret is shown in the way of the system that it is for"
        )
    return _auth_class()(_Presenter(credential, header, origin))


class _Presenter:
    """Shows one credential to one origin, and keeps the nonce that the origin asked for.

    One instance may serve several threads: the origin is set once, and a nonce is replaced as a whole.
    """

    def __init__(self, credential: TaskCredential, header: str, origin: str | None) -> None:
        self._credential = credential
        self._header = header
        self._origins = [] if origin is None else [_checked(origin)]
        self._nonce = ""

    def exchange(self, request: Any) -> Generator[Any, Any, None]:
        """Send a request; repeat it at most twice: for a nonce, and for a place that a redirect led to.

        Args:
            request: Request of either library.

        Yields:
            Requests to send; the client sends back the response of each.

        Raises:
            UsageError: The request goes to another origin than the credential's.
        """
        self._bind(request)
        may_renew, may_move = self._credential.key is not None, True
        while True:
            self._show(request)
            place = (request.method, str(request.url))
            response = yield request
            if not self._stayed(response):
                return
            nonce = response.headers.get("dpop-nonce", "")
            self._nonce = nonce or self._nonce
            if response.status_code != _UNAUTHORIZED:
                return
            asked = _USE_NONCE in response.headers.get("www-authenticate", "")
            renews = may_renew and bool(nonce) and asked
            moves = may_move and (response.request.method, str(response.request.url)) != place
            if not (renews or moves):
                return
            may_renew, may_move = may_renew and not renews, may_move and not moves
            request = response.request

    def _bind(self, request: Any) -> None:
        origin = _origin(request)
        if not self._origins:
            self._origins.append(origin)
        if origin != self._origins[0]:
            raise UsageError(
                f"the credential for {self._credential.operation} is for {self._origins[0]}; it is not shown to {origin}"
            )

    def _stayed(self, response: Any) -> bool:
        """Whether every request that led to a response went to the credential's origin."""
        return all(
            _origin(one.request) == self._origins[0] for one in (*response.history, response)
        )

    def _show(self, request: Any) -> None:
        shown = self._credential.headers(
            request.method, str(request.url), nonce=self._nonce, header=self._header
        )
        # The copy is of the library's own class, and without a credential that was shown before.
        plain = request.headers.copy()
        library: Any = type(plain)
        request.headers = _shown_headers(library)(plain, shown)


def _checked(origin: str) -> str:
    """Normalize an origin as the libraries do: lower case, no default port."""
    parts = urlsplit(origin)
    host = parts.netloc.lower().removesuffix({"http": ":80", "https": ":443"}.get(parts.scheme, ""))
    if parts.scheme not in ("http", "https") or not host or "@" in host or parts.path.strip("/"):
        raise UsageError(f"not an origin: {origin!r}; write scheme and host: https://crm.example")
    return f"{parts.scheme}://{host}"


def _origin(request: Any) -> str:
    return f"{request.url.scheme}://{request.url.netloc.decode('ascii')}"


@cache
def _shown_headers(plain: Any) -> type[Any]:
    """Make the class of headers whose copies lack the credential.

    Both libraries build the request after a redirect from `Headers(request.headers)`, and remove from this copy nothing but
    `authorization`, and that only if the origin changes.
    INVARIANT (redirects): only the object that is sent holds credential and proof; a copy of it holds neither.
    """

    class ShownHeaders(plain):  # type: ignore[misc]
        def __init__(self, headers: Any, shown: Mapping[str, str]) -> None:
            super().__init__(headers, encoding=headers.encoding)
            self._shown = plain(shown).raw

        def with_credential(self) -> Any:
            names = {name.lower() for name, _ in self._shown}
            kept = [pair for pair in super().raw if pair[0].lower() not in names]
            return plain([*kept, *self._shown], encoding=self.encoding)

        @property
        def raw(self) -> list[tuple[bytes, bytes]]:
            found: list[tuple[bytes, bytes]] = self.with_credential().raw
            return found

        def __reduce__(self) -> tuple[Any, ...]:
            return (plain, (super().raw,))

    for name in _READING:
        setattr(ShownHeaders, name, _reading(name))
    if plain(ShownHeaders(plain(), {"authorization": "-"})):
        raise UsageError(
            f"this version of {plain.__module__.partition('.')[0]} would send credentials on when it follows a redirect"
        )
    return ShownHeaders


def _reading(name: str) -> Callable[..., Any]:
    def read(self: Any, *args: Any, **named: Any) -> Any:
        return getattr(self.with_credential(), name)(*args, **named)

    return read


@cache
def _auth_class() -> type[Any]:
    """Make the class of handlers, which both clients accept where both libraries are installed.

    Raises:
        UsageError: Neither is installed.
    """
    bases = []
    for name in _LIBRARIES:
        try:
            bases.append(importlib.import_module(name).Auth)
        except ImportError:
            continue
    if not bases:
        raise UsageError("credential_auth needs an HTTP client: pip install httpx, or httpx2")

    class CredentialAuth(*dict.fromkeys(bases)):  # type: ignore[misc]
        """Handler whose flows are its own: those of the libraries expect requests of one library."""

        def __init__(self, presenter: _Presenter) -> None:
            self._presenter = presenter

        def auth_flow(self, request: Any) -> Generator[Any, Any, None]:
            return self._presenter.exchange(request)

        def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
            return self._presenter.exchange(request)

        async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
            exchange = self._presenter.exchange(request)
            try:
                sent = next(exchange)
                while True:
                    response = yield sent
                    sent = exchange.send(response)
            except StopIteration:
                return
            finally:
                exchange.close()

    return CredentialAuth
