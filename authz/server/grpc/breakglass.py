"""Break-glass over the administration socket: people open, confirm and end it, and every caller can list and end it.

INVARIANT (who acts): as for approvals, a call is made by a person only if the users of all open connections to the socket are
one, and `approvals.people` maps that user to the person.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import grpc

from authz.approvals import PeopleByUid, Person
from authz.errors import ApiError
from authz.server.grpc.admin import ADMIN
from authz.server.grpc.decisions import RawHandler
from authz.server.grpc.unary import CallContext, unary_handler

__all__ = ["AdminBreakglass", "BreakglassCalls"]


class BreakglassCalls(Protocol):
    """The part of the engine that keeps break-glass. Requests and answers are encoded messages, a person has JSON values."""

    def breakglass_open(self, person: Mapping[str, Any] | None, request: bytes) -> bytes:
        """Answer `authz.v1.Admin/OpenBreakglass` for a person."""

    def breakglass_confirm(self, person: Mapping[str, Any] | None, request: bytes) -> bytes:
        """Answer `authz.v1.Admin/ConfirmBreakglass` for a person."""

    def breakglass_end(self, person: Mapping[str, Any] | None, request: bytes) -> bytes:
        """Answer `authz.v1.Admin/EndBreakglass`."""

    def breakglass_list(self, request: bytes) -> bytes:
        """Answer `authz.v1.Admin/ListBreakglass`."""


_Change = Callable[[Mapping[str, Any] | None, bytes], bytes]


@dataclass(frozen=True, slots=True)
class AdminBreakglass:
    """Handlers of the administration socket for break-glass."""

    engine: BreakglassCalls
    """Keeps break-glass."""
    people: PeopleByUid
    """People who act over the socket."""
    users: Callable[[], frozenset[int]]
    """Returns the users that are connected to the socket."""
    context: CallContext
    """Shared by the handlers of the listener."""

    def handlers(self) -> dict[str, RawHandler]:
        """Return the handler of each method."""
        return {
            "OpenBreakglass": self._handler("OpenBreakglass", self.engine.breakglass_open),
            "ConfirmBreakglass": self._handler("ConfirmBreakglass", self.engine.breakglass_confirm),
            "EndBreakglass": self._handler("EndBreakglass", self.engine.breakglass_end),
            "ListBreakglass": unary_handler(ADMIN, "ListBreakglass", self._list, self.context),
        }

    def _handler(self, method: str, change: _Change) -> RawHandler:
        def changed(request: bytes, _context: grpc.ServicerContext) -> bytes:
            users = self.users()
            person = self._person_of(users)
            # The engine is asked for nobody, too: it records the refusal.
            try:
                return change(None if person is None else asdict(person), request)
            except ApiError as error:
                if person is None and error.reason == "NOT_PERMITTED":
                    raise ApiError(error.reason, error.grpc_code, _no_person(users)) from error
                raise

        return unary_handler(ADMIN, method, changed, self.context)

    def _person_of(self, users: frozenset[int]) -> Person | None:
        return self.people.find(next(iter(users))) if len(users) == 1 else None

    def _list(self, request: bytes, _context: grpc.ServicerContext) -> bytes:
        return self.engine.breakglass_list(request)


def _no_person(users: frozenset[int]) -> str:
    if len(users) > 1:
        return "several users are connected to the administration socket, so nobody can tell who acts; try again"
    who = f"user {next(iter(users))}" if users else "the user of this connection"
    return f"{who} is not in `approvals.people`. Add `{{uid: …, issuer: …, sub: …}}` to the configuration"
