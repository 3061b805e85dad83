"""Session of a client: transport, identity, timeout and retries of all its calls."""

from collections.abc import Generator, Sequence
from typing import Any, TypeAlias, TypeVar, final

from google.protobuf.message import DecodeError, Message

from authz_client.context import Caller, current_caller, current_subject
from authz_client.credentials import Credentials, TokenSource, source_of
from authz_client.errors import TransportError, Unavailable, denied, refusal_of_rpc
from authz_client.flow import Attempts, Deadline, Fetch, Flow, asking
from authz_client.transport import Transport
from authz_client.v1 import decision_pb2

__all__ = ["Session"]

_Role: TypeAlias = decision_pb2.EvidenceRole.ValueType
_Scheme: TypeAlias = decision_pb2.EvidenceScheme.ValueType
Answer = TypeVar("Answer", bound=Message)


@final
class Session:
    """Calls one node as one identity.

    Args:
        transport: Carries the calls.
        source: Source of the client's own credential. With None its TLS certificate is its identity.
        enforcer: The client asks about its callers, which `caller(…)` sets.
        timeout: Seconds for a question.
        retries: Further attempts of a question that was not decided.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        source: TokenSource | None,
        enforcer: bool,
        timeout: float,
        retries: int,
    ) -> None:
        self.transport = transport
        self.enforcer = enforcer
        self.timeout = timeout
        self._source = source
        self._retries = retries

    def attempts(self, timeout: float | None) -> Attempts:
        """Make the attempts of one question.

        Args:
            timeout: Seconds. Default: the client's.

        Returns:
            The attempts.
        """
        return self.attempts_until(Deadline.within(self.timeout if timeout is None else timeout))

    def attempts_until(self, deadline: Deadline) -> Attempts:
        """Make the attempts of one question that has a deadline.

        Args:
            deadline: The deadline.

        Returns:
            The attempts.
        """
        return Attempts(deadline, self._retries)

    def caller(self, operation: str, given: Caller | None) -> Caller | None:
        """Choose the caller that a question is about.

        Args:
            operation: Operation id, for errors.
            given: Caller of the question. Default: that of the block.

        Returns:
            The caller, or None for the client itself.

        Raises:
            Denied: An enforcer has no caller, or the caller's request contradicts itself.
        """
        who = given if given is not None else (current_caller() if self.enforcer else None)
        if who is None and self.enforcer:
            what = "no caller is set: use `with caller(Caller.from_headers(…)):`"
            raise denied(what, operation=operation, reason_code="NO_CREDENTIAL")
        if who is not None and who.conflict:
            what = f"the caller's request says more than one thing: {who.conflict}"
            raise denied(what, operation=operation, reason_code="AMBIGUOUS_REQUEST")
        return who

    def evidence(
        self, deadline: Deadline, who: Caller | None, subject_token: Credentials | None
    ) -> Flow[Sequence[decision_pb2.Evidence]]:
        """Gather the credentials of a question.

        Args:
            deadline: Deadline of the question.
            who: The caller. Default: the client itself.
            subject_token: Token of the subject.

        Yields:
            Steps to perform.

        Returns:
            The evidence.
        """
        found: list[decision_pb2.Evidence] = []

        def add(role: _Role, token: str, scheme: _Scheme, proof: str = "") -> None:
            found.append(decision_pb2.Evidence(role=role, scheme=scheme, token=token, proof=proof))

        def fetched(role: _Role, source: TokenSource) -> Generator[Fetch, Any, None]:
            token = yield Fetch(source, deadline.left())
            add(role, token, decision_pb2.EVIDENCE_SCHEME_BEARER)

        agent, subject = decision_pb2.EVIDENCE_ROLE_AGENT, decision_pb2.EVIDENCE_ROLE_SUBJECT
        if who is not None:
            by_dpop = decision_pb2.EVIDENCE_SCHEME_DPOP
            own = who.credential_token is not None and who.credential_scheme == by_dpop
            if who.agent_token is not None:
                add(agent, who.agent_token, who.scheme, "" if own else who.proof)
            if who.credential_token is not None:
                proof = who.proof if own or who.agent_token is None else ""
                add(agent, who.credential_token, who.credential_scheme, proof)
            if who.subject_token is not None:
                add(subject, who.subject_token, decision_pb2.EVIDENCE_SCHEME_BEARER)
        else:
            if self._source is not None:
                yield from fetched(agent, self._source)
            subject_token = subject_token if subject_token is not None else current_subject()
        if subject_token is not None:
            yield from fetched(subject, source_of(subject_token))
        return found

    def calling(
        self,
        method: str,
        request: bytes,
        kind: type[Answer],
        attempts: Attempts,
        operation: str,
    ) -> Flow[Answer]:
        """Call a method and read its answer.

        Args:
            method: `<service>/<method>`.
            request: The encoded request.
            kind: The answer's message.
            attempts: Attempts that are left.
            operation: Operation id, for errors.

        Yields:
            Steps to perform.

        Returns:
            The answer.

        Raises:
            Refused: The call failed.
        """
        try:
            answer = yield from asking(method, request, attempts)
            message = kind()
            message.ParseFromString(answer)
        except TransportError as error:
            raise refusal_of_rpc(error, operation) from error
        except DecodeError as error:
            raise Unavailable.of("the answer cannot be read", operation) from error
        return message
