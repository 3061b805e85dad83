"""Part that the integrations of `httpx` and `httpx2` share. It imports neither: both have requests of the same form."""

from collections.abc import Callable, Generator, Mapping
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

from authz_client.base_errors import UsageError
from authz_client.context import TASK_HEADER, outgoing_task
from authz_client.issued import TaskCredential

__all__ = ["CredentialExchange", "name_task"]

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


def name_task(request: Any) -> None:
    """Name the current task in a request of either library, unless the request names one.

    Args:
        request: The request.
    """
    task = outgoing_task()
    if task is not None and TASK_HEADER not in request.headers:
        request.headers[TASK_HEADER] = task


class CredentialExchange:
    """Shows one credential to one origin, and keeps the nonce that the origin asked for.

    One instance may serve several threads: the origin is set once, and a nonce is replaced as a whole.

    Args:
        credential: Credential to show.
        header: Header that shows it.
        origin: Only origin that may see it. Default: that of the first request.

    Raises:
        UsageError: `credential` is not a task credential, or `origin` is not an origin.
    """

    def __init__(self, credential: TaskCredential, header: str, origin: str | None) -> None:
        if not isinstance(credential, TaskCredential):
            raise UsageError(
                f"credential_auth takes a TaskCredential, not {type(credential).__name__}: "
                "a leased secret is shown in the way of the system that it is for"
            )
        self._credential = credential
        self._header = header
        self._origins = [] if origin is None else [_checked(origin)]
        self._nonce = ""

    def requests(self, request: Any) -> Generator[Any, Any, None]:
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
