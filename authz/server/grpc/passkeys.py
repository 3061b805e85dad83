"""`authz.v1.Passkeys`: invitations and passkeys, on the administration listener."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from authz.approvals import (
    ApprovalStore,
    Invitations,
    InvitationsFullError,
    StoredPasskey,
    is_local_person,
)
from authz.errors import ApiError, GrpcCode
from authz.server.grpc.decisions import RawHandler
from authz.server.grpc.unary import CallContext, unary_handler
from authz.telemetry import Logger
from authz_client.v1 import passkeys_pb2

__all__ = ["PASSKEYS", "PasskeyServices"]

PASSKEYS: Final = "authz.v1.Passkeys"
"""Full name of the service."""

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class PasskeyServices:
    """The parts of a node that serve passkeys on its administration listener."""

    store: ApprovalStore
    """Keeps passkeys."""
    invitations: Invitations
    """Open invitations, which people use at the page."""
    url: str
    """Base URL of the page. Empty if no page accepts passkeys."""
    issuers: frozenset[str]
    """Aliases of the configured issuers."""
    log: Logger
    """Receives invitations and removals."""

    def handlers(self, context: CallContext) -> dict[str, RawHandler]:
        """Return the handler of each method. The handlers of the listener share `context`."""

        def handler(
            method: str, answer: Callable[[bytes, grpc.ServicerContext], bytes]
        ) -> RawHandler:
            return unary_handler(PASSKEYS, method, answer, context)

        return {
            "Invite": handler("Invite", self._invite),
            "List": handler("List", self._list),
            "Remove": handler("Remove", self._remove),
        }

    def _invite(self, request: bytes, _context: grpc.ServicerContext) -> bytes:
        asked = _parse(passkeys_pb2.PasskeysInviteRequest, request)
        if not self.url:
            raise _refused(
                "this node has no page that takes passkeys; configure listeners.approvals and approvals.passkeys"
            )
        if asked.issuer in self.issuers:
            raise _refused(
                f"`{asked.issuer}` is an issuer of the configuration; its people log in there, and add passkeys on the page"
            )
        if not is_local_person(asked.issuer, asked.sub):
            raise _bad_input(
                "give an issuer of letters, digits, dots, dashes and underscores, for example local, and a sub; "
                "together at most 63 bytes"
            )
        try:
            secret, invitation = self.invitations.make(asked.issuer, asked.sub)
        except InvitationsFullError as error:
            raise ApiError("OVERLOADED", GrpcCode.RESOURCE_EXHAUSTED, str(error)) from error
        self.log.warning("a person was invited", person=f"{asked.issuer}/{asked.sub}")
        answer = passkeys_pb2.PasskeysInviteResponse(url=f"{self.url}/invite#{secret}")
        answer.expires_at.FromMilliseconds(int(invitation.expires_at * 1000))
        return answer.SerializeToString()

    def _list(self, request: bytes, _context: grpc.ServicerContext) -> bytes:
        asked = _parse(passkeys_pb2.PasskeysListRequest, request)
        found = self.store.passkeys(*_person(asked.issuer, asked.sub))
        found.sort(key=lambda one: int(one["created_at"]))
        answer = passkeys_pb2.PasskeysListResponse(passkeys=map(_shown, found))
        return answer.SerializeToString()

    def _remove(self, request: bytes, _context: grpc.ServicerContext) -> bytes:
        asked = _parse(passkeys_pb2.PasskeysRemoveRequest, request)
        issuer, sub = _person(asked.issuer, asked.sub)
        ids = [str(one["credential_id"]) for one in self.store.passkeys(issuer, sub)]
        if asked.credential_id:
            ids = [one for one in ids if one == asked.credential_id]
            if not ids:
                what = f"`{issuer}/{sub}` has no such passkey"
                raise ApiError("BAD_INPUT", GrpcCode.NOT_FOUND, what)
        for credential_id in ids:
            self.store.remove_passkey(issuer, sub, credential_id)
        self.log.warning(
            "passkeys were removed by an administrator", person=f"{issuer}/{sub}", removed=len(ids)
        )
        return passkeys_pb2.PasskeysRemoveResponse(removed=len(ids)).SerializeToString()


def _person(issuer: str, sub: str) -> tuple[str, str]:
    if not issuer or not sub:
        raise _bad_input("`issuer` and `sub` name the person; one is missing")
    return issuer, sub


def _shown(passkey: StoredPasskey) -> passkeys_pb2.Passkey:
    shown = passkeys_pb2.Passkey(
        credential_id=str(passkey["credential_id"]), name=str(passkey.get("name", ""))
    )
    shown.created_at.FromMilliseconds(int(passkey["created_at"]))
    if (used_at := passkey.get("used_at")) is not None:
        shown.used_at.FromMilliseconds(int(used_at))
    return shown


def _parse(kind: type[M], request: bytes) -> M:
    try:
        return kind.FromString(request)
    except DecodeError as error:
        raise _bad_input("the request is not the message that this method takes") from error


def _bad_input(what: str) -> ApiError:
    return ApiError("BAD_INPUT", GrpcCode.INVALID_ARGUMENT, what)


def _refused(what: str) -> ApiError:
    return ApiError("BAD_INPUT", GrpcCode.FAILED_PRECONDITION, what)
