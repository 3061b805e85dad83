"""Task credentials on the agent's side: ask for one, and show it with each request that it is for."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypedDict, Unpack, final

from authz.base_errors import UsageError
from authz.client.context import Caller
from authz.client.credentials import Credentials
from authz.client.dpop import ProofKey
from authz.client.errors import TransportError, Unavailable, refusal_of_rpc
from authz.client.flow import Attempts, Call, Deadline, Flow, arun, run, undecided
from authz.client.permit import Permit
from authz.client.questions import CheckOptions, Questions
from authz.client.session import Session
from authz.v1 import credentials_pb2

__all__ = ["IssueOptions", "Leased", "TaskCredential", "TaskCredentials"]

_SERVICE: Final = "authz.v1.Credentials"


class IssueOptions(TypedDict, total=False):
    """What asking for a credential may say besides operation and arguments."""

    audience: str
    """Whom it is for; default: the operation's system."""
    lifetime: float
    """Seconds that it lives at most; default: as long as the tier lets it."""
    bound: bool
    """Bind it to the client's key; default: where the client knows the issuer."""
    task: str
    """Task id; default: the current task."""
    resource: str
    """Resource id, where the operation's arguments do not name it."""
    destinations: list[str]
    """Destinations, where the operation's arguments do not name them."""
    subject_token: Credentials
    """On whose behalf; default: as the task says."""
    timeout: float
    """Seconds for permit and credential; default: the client's."""


@dataclass(frozen=True, slots=True)
class TaskCredential:
    """A token for one permitted operation; it ends with its task."""

    token: str = field(repr=False)
    """The token."""
    token_type: str
    """`DPoP` or `Bearer`."""
    expires_at: float
    """When it ends; Unix time."""
    operation: str
    """What it is for."""
    decision_id: str
    """The permit that it exists because of."""
    key: ProofKey | None = None
    """The key that it is bound to; none: whoever bears it, or the client's certificate."""

    def headers(
        self, method: str, url: str, *, nonce: str = "", header: str = "authorization"
    ) -> dict[str, str]:
        """Give the headers of one request.

        Args:
            method: The request's method.
            url: Its URL.
            nonce: What the server asked for.
            header: `authorization`, or `authz-credential` where that one holds another token.

        Returns:
            The headers, with a proof of its own where the credential is bound to a key.
        """
        found = {header: f"{self.token_type} {self.token}"}
        if self.key is not None:
            found["dpop"] = self.key.proof(method, url, token=self.token, nonce=nonce)
        return found


@dataclass(frozen=True, slots=True)
class Leased:
    """A leased secret for one permitted operation of a system that knows no tokens; it ends with its task."""

    id: str
    """The lease."""
    parts: Mapping[str, str] = field(repr=False)
    """What it consists of, such as a user and a password."""
    expires_at: float
    """When it ends; Unix time."""
    operation: str
    """What it is for."""
    decision_id: str
    """The permit that it exists because of."""


Issued: TypeAlias = TaskCredential | Leased
"""What a credential can be: a token, or a leased secret."""


@final
class TaskCredentials:
    """The methods of `authz.v1.Credentials` for the agent that a credential is issued to.

    Args:
        session: Calls the node.
        questions: Asks for the permit that a credential is issued for.
        issuer: The node's `credentials.issuer`, which proofs are for; empty: no credential is bound to a key.
        key: The key that credentials are bound to; none: a new one.
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
            issue: What else is said.

        Returns:
            The credential.

        Raises:
            Denied: It may not be performed, or no such credential is issued.
            StepUp: Not yet.
            Unavailable: There is no answer.
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
            issue: What else is said.

        Returns:
            The credential.

        Raises:
            Denied: It may not be performed, or no such credential is issued.
            StepUp: Not yet.
            Unavailable: There is no answer.
        """
        return await arun(self._issuing(operation, arguments, issue), self._session.transport)

    def revoke(self, credential: TaskCredential, *, timeout: float | None = None) -> None:
        """End a credential before its time; its operation counts as not performed, if it was not.

        Args:
            credential: The credential.
            timeout: Seconds; default: the client's.

        Raises:
            Denied: It is another agent's.
            Unavailable: There is no answer.
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
            timeout: Seconds; default: the client's.

        Raises:
            Denied: It is another agent's.
            Unavailable: There is no answer.
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
        ends = answer.expires_at.seconds + answer.expires_at.nanos / 1e9
        if answer.WhichOneof("credential") == "lease":
            lease = answer.lease
            return Leased(lease.id, dict(lease.parts), ends, operation, permit.decision_id)
        kind = "DPoP" if key is not None else "Bearer"
        if not answer.token or answer.token_type != kind or ends <= time.time():
            raise Unavailable.of("the answer is not the credential that was asked for", operation)
        return TaskCredential(answer.token, kind, ends, operation, permit.decision_id, key)

    def leasing(self, permit: Permit, deadline: Deadline, who: Caller | None) -> Flow[Leased]:
        """The flow that gets the secret by which a permitted operation is performed.

        Args:
            permit: The permit, which was asked for with `wants_credential`.
            deadline: Until when.
            who: Whose permit it is; none: the client's own.

        Yields:
            What is needed.

        Returns:
            The secret.

        Raises:
            Refused: There is none.
        """
        request = credentials_pb2.IssueRequest(decision_id=permit.decision_id)
        answer = yield from self._issued(request, None, deadline, None, who)
        if answer.WhichOneof("credential") != "lease" or not answer.lease.parts:
            raise Unavailable.of("the answer is no leased secret", permit.operation)
        ends = answer.expires_at.seconds + answer.expires_at.nanos / 1e9
        lease = answer.lease
        return Leased(lease.id, dict(lease.parts), ends, permit.operation, permit.decision_id)

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
        attempts = session.attempts(deadline.left())
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
                    # That a permit is used up by an attempt that failed is no denial.
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
