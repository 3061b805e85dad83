"""Task credentials and leased secrets of an agent."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypedDict, Unpack, final

from authz_client.base_errors import UsageError
from authz_client.context import Caller
from authz_client.credentials import Credentials
from authz_client.dpop import ProofKey
from authz_client.errors import TransportError, Unavailable, refusal_of_rpc
from authz_client.flow import Attempts, Call, Deadline, Flow, arun, run, undecided
from authz_client.permit import Permit
from authz_client.questions import CheckOptions, Questions
from authz_client.session import Session
from authz_client.v1 import credentials_pb2

__all__ = ["IssueOptions", "Leased", "TaskCredential", "TaskCredentials"]

_SERVICE: Final = "authz.v1.Credentials"


class IssueOptions(TypedDict, total=False):
    """Options of a request for a credential."""

    audience: str
    """Audience of the credential. Default: the operation's system."""
    lifetime: float
    """Lifetime in seconds, at most that of the tier. Default: that of the tier."""
    bound: bool
    """Bind it to the client's key. Default: true if the client has a `credential_issuer`."""
    task: str
    """Task id. Default: the current task."""
    resource: str
    """Resource id, where the operation's arguments do not name it."""
    destinations: list[str]
    """Destinations, where the operation's arguments do not name them."""
    subject_token: Credentials
    """Token of the subject. Default: the subject of the task."""
    timeout: float
    """Seconds for permit and credential. Default: the client's."""


@dataclass(frozen=True, slots=True)
class TaskCredential:
    """A token for one permitted operation; it ends with its task."""

    token: str = field(repr=False)
    """The token."""
    token_type: str
    """`DPoP` or `Bearer`."""
    expires_at: float
    """End of its lifetime: Unix time."""
    operation: str
    """Operation id."""
    decision_id: str
    """Id of the permit."""
    key: ProofKey | None = None
    """Key to which the credential is bound. None for a bearer token, and for a credential that is bound to the client's certificate."""

    def headers(
        self, method: str, url: str, *, nonce: str = "", header: str = "authorization"
    ) -> dict[str, str]:
        """Make the headers of one request.

        Args:
            method: The request's method.
            url: Its URL.
            nonce: Nonce that the server demands (RFC 9449 §8). Default: none.
            header: `authorization`, or `authz-credential` if `authorization` holds another token.

        Returns:
            The headers, with a new proof if the credential is bound to a key.
        """
        result = {header: f"{self.token_type} {self.token}"}
        if self.key is not None:
            result["dpop"] = self.key.proof(method, url, token=self.token, nonce=nonce)
        return result


@dataclass(frozen=True, slots=True)
class Leased:
    """A leased secret for one permitted operation of a system that does not take tokens; it ends with its task."""

    id: str
    """Id of the lease."""
    parts: Mapping[str, str] = field(repr=False)
    """Its parts by name, for example a user and a password."""
    expires_at: float
    """End of its lifetime: Unix time."""
    operation: str
    """Operation id."""
    decision_id: str
    """Id of the permit."""


Issued: TypeAlias = TaskCredential | Leased
"""A credential: a token, or a leased secret."""


@final
class TaskCredentials:
    """The methods of `authz.v1.Credentials` for the agent that a credential is issued to.

    Args:
        session: Calls the node.
        questions: Asks for the permit that a credential is issued for.
        issuer: The node's `credentials.issuer`, for proofs. Empty: credentials are not bound to a key.
        key: Key that credentials are bound to. Default: a new one.
    """

    def __init__(
        self, session: Session, questions: Questions, issuer: str, key: ProofKey | None = None
    ) -> None:
        self._session = session
        self._questions = questions
        self._issuer = issuer.removesuffix("/")
        self._nonce = ""
        self._key = key

    @property
    def key(self) -> ProofKey:
        """The key that credentials are bound to, made when it is first needed."""
        if self._key is None:
            self._key = ProofKey()
        return self._key

    def issue(
        self,
        operation: str,
        arguments: Mapping[str, Any] | bytes | None = None,
        **issue: Unpack[IssueOptions],
    ) -> Issued:
        """Ask whether an operation may be performed, and for a credential that performs it.

        Args:
            operation: Its id, `<system>.<name>`.
            arguments: Its arguments, or one JSON object: the credential is for these.
            issue: Further options.

        Returns:
            The credential.

        Raises:
            Denied: The operation may not be performed, or such a credential is not issued.
            StepUp: Something must be shown first.
            Unavailable: The node did not answer in time.
        """
        return run(self._issuing(operation, arguments, issue), self._session.transport)

    async def aissue(
        self,
        operation: str,
        arguments: Mapping[str, Any] | bytes | None = None,
        **issue: Unpack[IssueOptions],
    ) -> Issued:
        """As `issue`, without blocking the event loop.

        Args:
            operation: Its id, `<system>.<name>`.
            arguments: Its arguments, or one JSON object.
            issue: Further options.

        Returns:
            The credential.

        Raises:
            Denied: The operation may not be performed, or such a credential is not issued.
            StepUp: Something must be shown first.
            Unavailable: The node did not answer in time.
        """
        return await arun(self._issuing(operation, arguments, issue), self._session.transport)

    def revoke(self, credential: TaskCredential, *, timeout: float | None = None) -> None:
        """Revoke a credential. Its operation counts as not performed, unless it was performed.

        Args:
            credential: The credential.
            timeout: Seconds. Default: the client's.

        Raises:
            Denied: The credential belongs to another agent.
            Unavailable: The node did not answer in time.
        """
        run(self._revoking(credential, timeout), self._session.transport)

    async def arevoke(
        self,
        credential: TaskCredential,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it travels
    ) -> None:
        """As `revoke`, without blocking the event loop.

        Args:
            credential: The credential.
            timeout: Seconds. Default: the client's.

        Raises:
            Denied: The credential belongs to another agent.
            Unavailable: The node did not answer in time.
        """
        await arun(self._revoking(credential, timeout), self._session.transport)

    def _issuing(
        self, operation: str, arguments: Mapping[str, Any] | bytes | None, issue: IssueOptions
    ) -> Flow[Issued]:
        session = self._session
        if session.enforcer:
            raise UsageError("credentials are issued to the agent itself, not to an enforcer")
        bound = issue.get("bound", bool(self._issuer))
        if bound and not self._issuer:
            raise UsageError("a proof needs the issuer: Authz(..., credential_issuer=...)")
        deadline = Deadline.within(issue.get("timeout", session.timeout))
        asked: CheckOptions = {"wants_credential": True, "timeout": deadline.left()}
        for name in ("task", "resource", "destinations", "subject_token"):
            if name in issue:
                asked[name] = issue[name]
        permit = yield from self._questions.checking(operation, arguments, asked)
        key = self.key if bound else None
        request = credentials_pb2.IssueRequest(
            decision_id=permit.decision_id,
            audience=issue.get("audience", ""),
            lifetime_seconds=max(0, round(issue.get("lifetime", 0.0))),
        )
        answer = yield from self._issued(request, key, deadline, issue.get("subject_token"))
        if answer.dpop_nonce:
            self._nonce = answer.dpop_nonce
        if answer.WhichOneof("credential") == "lease":
            return _leased(answer, permit)
        ends = _end_of(answer)
        kind = "DPoP" if key is not None else "Bearer"
        if not answer.token or answer.token_type != kind or ends <= time.time():
            raise Unavailable.of("the answer is not the credential that was asked for", operation)
        return TaskCredential(answer.token, kind, ends, operation, permit.decision_id, key)

    def leasing(self, permit: Permit, deadline: Deadline, who: Caller | None) -> Flow[Leased]:
        """The flow that gets the leased secret for a permitted operation.

        Args:
            permit: A permit of a question with `wants_credential`.
            deadline: Deadline of the call.
            who: Caller that gets the permit. Default: the client itself.

        Yields:
            Steps to perform.

        Returns:
            The secret.

        Raises:
            Refused: The secret is not issued.
        """
        request = credentials_pb2.IssueRequest(decision_id=permit.decision_id)
        answer = yield from self._issued(request, None, deadline, None, who)
        if answer.WhichOneof("credential") != "lease" or not answer.lease.parts:
            raise Unavailable.of("the answer is not a leased secret", permit.operation)
        return _leased(answer, permit)

    def _issued(
        self,
        request: credentials_pb2.IssueRequest,
        key: ProofKey | None,
        deadline: Deadline,
        subject_token: Credentials | None,
        who: Caller | None = None,
    ) -> Flow[credentials_pb2.IssueResponse]:
        """Ask until there is an answer; each time with a proof of its own."""
        session = self._session
        attempts = session.attempts_until(deadline)
        renewed, first = False, None
        while True:
            del request.evidence[:]
            request.evidence.extend((yield from session.evidence(deadline, who, subject_token)))
            if key is not None:
                url = f"{self._issuer}/{_SERVICE}/Issue"
                request.proof = key.proof("POST", url, nonce=self._nonce)
            try:
                answered = yield Call(
                    f"{_SERVICE}/Issue", request.SerializeToString(), deadline.left()
                )
                return credentials_pb2.IssueResponse.FromString(answered)
            except TransportError as error:
                if error.dpop_nonce and not renewed:
                    self._nonce, renewed = error.dpop_nonce, True
                    continue
                pause = attempts.pause() if undecided(error) else None
                if pause is None:
                    # A permit that a failed attempt used up must not look like a denial.
                    raise refusal_of_rpc(first or error, "") from error
                first = first or error
            yield pause

    def _revoking(self, credential: TaskCredential, timeout: float | None) -> Flow[None]:
        session = self._session
        attempts: Attempts = session.attempts(timeout)
        evidence = yield from session.evidence(attempts.deadline, None, None)
        request = credentials_pb2.CredentialsRevokeRequest(
            evidence=evidence, token=credential.token
        )
        yield from session.calling(
            f"{_SERVICE}/Revoke",
            request.SerializeToString(),
            credentials_pb2.CredentialsRevokeResponse,
            attempts,
            "",
        )


def _leased(answer: credentials_pb2.IssueResponse, permit: Permit) -> Leased:
    lease = answer.lease
    return Leased(
        lease.id, dict(lease.parts), _end_of(answer), permit.operation, permit.decision_id
    )


def _end_of(answer: credentials_pb2.IssueResponse) -> float:
    """Return the Unix time at which the credential of an answer ends."""
    return answer.expires_at.seconds + answer.expires_at.nanos / 1e9
