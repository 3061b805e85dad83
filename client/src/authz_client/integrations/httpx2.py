"""Credentials and tasks on the requests of `httpx2`; `pip install authz-client[httpx2]` installs it.

from authz_client.integrations.httpx2 import credential_auth, event_hooks

httpx2.Client(auth=credential_auth(credential), event_hooks=event_hooks())
"""

from collections.abc import Awaitable, Callable, Generator
from typing import Literal

try:
    import httpx2
except ModuleNotFoundError as error:
    message = f"{__name__} needs the library httpx2: pip install 'authz-client[httpx2]'"
    raise ModuleNotFoundError(message, name="httpx2") from error

from authz_client.integrations._http import CredentialExchange, name_task
from authz_client.issued import TaskCredential

__all__ = ["async_event_hooks", "credential_auth", "event_hooks"]


def credential_auth(
    credential: TaskCredential,
    *,
    header: Literal["authorization", "authz-credential"] = "authorization",
    origin: str | None = None,
) -> httpx2.Auth:
    """Make an authentication handler that shows a task credential with each request, with a new proof each time.

    A server that asks for a nonce (RFC 9449 §9) gets it in one more try. If the client follows a redirect within the origin,
    and the server answers 401 there, the credential is shown once more with a proof for the new URL. A redirected request
    itself never carries the credential.

    Args:
        credential: Credential to show.
        header: `authorization`, or `authz-credential` if `authorization` holds another token.
        origin: Only origin that may see the credential, such as `https://crm.example`. Default: the origin of the first request.

    Returns:
        Handler for `httpx2.Client(auth=…)` and `httpx2.AsyncClient(auth=…)`. A request to another origin than `origin` raises
        `UsageError` and is not sent.

    Raises:
        UsageError: `credential` is not a task credential, or `origin` is not an origin.
    """
    return _CredentialAuth(CredentialExchange(credential, header, origin))


class _CredentialAuth(httpx2.Auth):
    def __init__(self, exchange: CredentialExchange) -> None:
        self._exchange = exchange

    def auth_flow(
        self, request: httpx2.Request
    ) -> Generator[httpx2.Request, httpx2.Response, None]:
        return self._exchange.requests(request)


def event_hooks() -> dict[str, list[Callable[[httpx2.Request], None]]]:
    """Make event hooks that name the current task in each request that names none.

    Returns:
        `httpx2.Client(event_hooks=event_hooks())`.
    """
    return {"request": [name_task]}


def async_event_hooks() -> dict[str, list[Callable[[httpx2.Request], Awaitable[None]]]]:
    """As `event_hooks`, for the asynchronous client.

    Returns:
        `httpx2.AsyncClient(event_hooks=async_event_hooks())`.
    """

    async def name(request: httpx2.Request) -> None:
        name_task(request)

    return {"request": [name]}
