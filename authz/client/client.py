"""The client: asks a node, and takes nothing but a permit for one."""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, Final, Self, TypeAlias, TypedDict, TypeVar, Unpack, final, overload

from google.protobuf.message import DecodeError, Message

from authz.client.arguments import Arguments, encoded
from authz.client.context import Caller, current_caller, current_subject, current_task
from authz.client.credentials import Credentials, TokenSource, source_of
from authz.client.dpop import ProofKey
from authz.client.errors import (
    PublicCode,
    Refused,
    Retry,
    TransportError,
    Unavailable,
    denied,
    refusal_of_rpc,
)
from authz.client.flow import Attempts, Deadline, Fetch, Flow, arun, asking, run
from authz.client.guard import Guard
from authz.client.issued import TaskCredentials
from authz.client.obligations import Obligations
from authz.client.permit import Permit, permit_of
from authz.client.report import Reports
from authz.client.report import Result as Came
from authz.client.tasks import TaskBlock, TaskOptions, Tasks
from authz.client.transport import GrpcTransport, Tls, Transport
from authz.errors import UsageError
from authz.v1 import authorizer_pb2, decision_pb2

__all__ = ["Asked", "Authz"]

_AUTHORIZER: Final = "authz.v1.Authorizer"
_MOST_PAGES: Final = 100
_MOST_RETRIES: Final = 10

_Role: TypeAlias = decision_pb2.EvidenceRole.ValueType
_Scheme: TypeAlias = decision_pb2.EvidenceScheme.ValueType
Answer = TypeVar("Answer", bound=Message)
Function = TypeVar("Function", bound=Callable[..., Any])
Result = TypeVar("Result")


class Asked(TypedDict, total=False):
    """What a question may say besides operation and arguments."""

    resource: str
    """Resource id, where the operation's arguments do not name it."""
    destinations: Sequence[str]
    """Destinations, where the operation's arguments do not name them."""
    labels: Sequence[str]
    """Labels of the bundle that the call carries; the enforcer's entry in the configuration lets it say so."""
    session_context: str
    """Context of the session, for example the id of a conversation; the enforcer's entry in the configuration lets it say so
    (`relays: [session]`). Default: none, so that labels of all contexts count."""
    task: str
    """Task id; default: the current task."""
    caller: Caller
    """Who acts; default: that of the block, or the client itself."""
    subject_token: Credentials
    """On whose behalf; default: as the task says."""
    supported_obligations: Sequence[str]
    """Obligations that the code that asks does itself; default: none, so a permit with one is a denial."""
    idempotency_key: str
    """For an enforcer that executes at most once a key."""
    wants_credential: bool
    """Keep the permit for a credential: what it permits is done by whoever the credential is shown to."""
    probe: bool
    """Only ask what would be; needs a permit for `authz.probe`."""
    timeout: float
    """Seconds; default: the client's."""


@final
class Authz:
    """A client of one node, for threads and for asyncio.

    Everything that goes wrong raises, so what stands after a question runs only where it was permitted.

    Args:
        address: `host:port` or `unix:///path`.
        credentials: Who the client is: a token, the path of a file that holds one (read again when it changes), a
            function, or a source. None: whoever its TLS certificate says.
        enforcer: The client asks about others, whom `caller(…)` names; without one it refuses to ask.
        tls: TLS; none: plain text.
        credential_issuer: The node's `credentials.issuer`: credentials are then bound to a key of the client.
        proof_key: That key; none: a new one, made when it is first needed.
        timeout: Seconds that a question may take, with everything that it takes.
        retries: How often a question that was not decided is asked again, within its time.
        transport: Instead of an address: whatever carries the calls.

    Raises:
        UsageError: The arguments contradict one another.
    """

    def __init__(
        self,
        address: str = "",
        *,
        credentials: Credentials | None = None,
        enforcer: bool = False,
        tls: Tls | None = None,
        credential_issuer: str = "",
        proof_key: ProofKey | None = None,
        timeout: float = 1.0,
        retries: int = 2,
        transport: Transport | None = None,
    ) -> None:
        if bool(address) == (transport is not None):
            raise UsageError("give the node's address")
        if enforcer and credentials is not None:
            what = "an enforcer asks about its callers, by their credentials; its own would stand for theirs"
            raise UsageError(what)
        if not 0 < timeout < float("inf") or not 0 <= retries <= _MOST_RETRIES:
            raise UsageError(f"give a timeout above 0, and 0 to {_MOST_RETRIES} retries")
        self.transport: Transport = (
            transport if transport is not None else GrpcTransport(address, tls)
        )
        self.timeout = timeout
        self.enforcer = enforcer
        self.obligations = Obligations()
        self.tasks = Tasks(self)
        self.credentials = TaskCredentials(self, credential_issuer, proof_key)
        self.reports = Reports(self)
        self._retries = retries
        self._source = source_of(credentials) if credentials is not None else None

    # --- life

    def close(self) -> None:
        """Let go of the connections of threads."""
        self.transport.close()

    async def aclose(self) -> None:
        """Let go of the connections of this event loop, and of threads."""
        await self.transport.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # --- questions

    def check(
        self,
        operation: str,
        arguments: Mapping[str, Any] | bytes | None = None,
        **asked: Unpack[Asked],
    ) -> Permit:
        """Ask whether an operation may be performed now.

        Args:
            operation: Its id, `<system>.<name>`.
            arguments: Its arguments, or one JSON object.
            asked: What else the question says.

        Returns:
            The permit. What its obligations demand is up to whoever asks.

        Raises:
            Denied: It may not.
            StepUp: Not yet.
            Unavailable: No decision could be had.
        """
        return run(self.checking(operation, arguments, asked), self.transport)

    async def acheck(
        self,
        operation: str,
        arguments: Mapping[str, Any] | bytes | None = None,
        **asked: Unpack[Asked],
    ) -> Permit:
        """As `check`, without blocking the event loop.

        Args:
            operation: Its id, `<system>.<name>`.
            arguments: Its arguments, or one JSON object.
            asked: What else the question says.

        Returns:
            The permit.

        Raises:
            Denied: It may not.
            StepUp: Not yet.
            Unavailable: No decision could be had.
        """
        return await arun(self.checking(operation, arguments, asked), self.transport)

    def checking(
        self, operation: str, arguments: Mapping[str, Any] | bytes | None, asked: Asked
    ) -> Flow[Permit]:
        """The flow of one question.

        Args:
            operation: Its id.
            arguments: Its arguments.
            asked: What else the question says.

        Yields:
            What is needed.

        Returns:
            The permit.

        Raises:
            Refused: There is none.
        """
        deadline = Deadline.within(asked.get("timeout", self.timeout))
        who = self.caller(operation, asked.get("caller"))
        evidence = yield from self.evidence(deadline, who, asked.get("subject_token"))
        task = asked.get("task") or (who.task if who is not None else current_task())
        request = decision_pb2.CheckRequest(
            evidence=evidence,
            task=task or "",
            operation=operation,
            arguments_json=encoded(arguments),
            resource=asked.get("resource", ""),
            destinations=asked.get("destinations", ()),
            labels=asked.get("labels", ()),
            session_context=asked.get("session_context", ""),
            idempotency_key=asked.get("idempotency_key", ""),
            supported_obligations=asked.get("supported_obligations", ()),
            mode=decision_pb2.MODE_PROBE if asked.get("probe") else decision_pb2.MODE_ENFORCE,
            wants_credential=asked.get("wants_credential", False),
            http_method=who.http_method if who is not None else "",
            http_uri=who.http_uri if who is not None else "",
        ).SerializeToString()
        attempts = Attempts(deadline, self._retries)
        while True:
            answer = yield from self.calling(
                f"{_AUTHORIZER}/Check", request, decision_pb2.CheckResponse, attempts, operation
            )
            if not answer.HasField("decision"):
                raise Unavailable.of("the answer holds no decision", operation)
            try:
                permit = permit_of(answer.decision, operation)
            except Refused as refused:
                refused.dpop_nonce = answer.dpop_nonce
                # INVARIANT (a denial stays one): only what was not decided is asked again.
                undecided = refused.public_code is PublicCode.UNAVAILABLE
                later = undecided and refused.retry is Retry.LATER and refused.decision_id
                pause = attempts.pause() if later else None
                if pause is None:
                    raise
                yield pause
                continue
            deadline.left()
            missing = set(permit.obligations) - set(asked.get("supported_obligations", ()))
            if missing:
                if not asked.get("wants_credential", False):
                    yield from self.reports.settling(permit, "aborted")
                what = f"nothing here does the obligation `{min(missing)}`"
                raise denied(what, operation=operation)
            return permit

    def report(
        self,
        permit: Permit,
        result: Came = "ok",
        *,
        labels: Iterable[str] | None = None,
        actuals: Mapping[str, int] | None = None,
        timeout: float | None = None,
    ) -> None:
        """Tell what came of a permit that `check` gave, as a guard does by itself.

        Args:
            permit: The permit; of one without `reservation_id` nothing is told.
            result: What came of it: it happened, it failed, or it was never tried.
            labels: Labels that the results carry, of those that the operation `yields`; default: of what happened, all.
            actuals: What was really spent of reserved sums, by budget.
            timeout: Seconds; default: the client's.

        Raises:
            Denied: It was told before, counts as done, or is not for this client to tell.
            Unavailable: There is no answer.
        """
        run(self.reports.telling(permit, result, labels, actuals, timeout), self.transport)

    async def areport(
        self,
        permit: Permit,
        result: Came = "ok",
        *,
        labels: Iterable[str] | None = None,
        actuals: Mapping[str, int] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - it travels
    ) -> None:
        """As `report`, without blocking the event loop.

        Args:
            permit: The permit; of one without `reservation_id` nothing is told.
            result: What came of it: it happened, it failed, or it was never tried.
            labels: Labels that the results carry, of those that the operation `yields`; default: of what happened, all.
            actuals: What was really spent of reserved sums, by budget.
            timeout: Seconds; default: the client's.

        Raises:
            Denied: It was told before, counts as done, or is not for this client to tell.
            Unavailable: There is no answer.
        """
        await arun(self.reports.telling(permit, result, labels, actuals, timeout), self.transport)

    def list(
        self,
        system: str = "",
        *,
        task: str | None = None,
        caller: Caller | None = None,
        timeout: float | None = None,
    ) -> tuple[str, ...]:
        """List the operations that could be permitted; never a decision.

        Args:
            system: Only those of this system.
            task: Task id; default: the current task.
            caller: Who acts; default: that of the block, or the client itself.
            timeout: Seconds for all pages; default: the client's.

        Returns:
            Operation ids, sorted.

        Raises:
            Denied: Whoever asks is refused.
            Unavailable: There is no answer.
        """
        return run(self._listing(system, task, caller, timeout), self.transport)

    async def alist(
        self,
        system: str = "",
        *,
        task: str | None = None,
        caller: Caller | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - it travels
    ) -> tuple[str, ...]:
        """As `list`, without blocking the event loop.

        Args:
            system: Only those of this system.
            task: Task id; default: the current task.
            caller: Who acts; default: that of the block, or the client itself.
            timeout: Seconds for all pages; default: the client's.

        Returns:
            Operation ids, sorted.

        Raises:
            Denied: Whoever asks is refused.
            Unavailable: There is no answer.
        """
        return await arun(self._listing(system, task, caller, timeout), self.transport)

    def _listing(
        self, system: str, task: str | None, caller: Caller | None, timeout: float | None
    ) -> Flow[tuple[str, ...]]:
        deadline = Deadline.within(timeout if timeout is not None else self.timeout)
        attempts = Attempts(deadline, self._retries)
        who = self.caller("", caller)
        evidence = yield from self.evidence(deadline, who, None)
        named = task or (who.task if who is not None else current_task())
        found: list[str] = []
        token = ""
        for _ in range(_MOST_PAGES):
            request = authorizer_pb2.ListRequest(
                evidence=evidence, task=named or "", system=system, page_token=token
            )
            answer = yield from self.calling(
                f"{_AUTHORIZER}/List",
                request.SerializeToString(),
                authorizer_pb2.ListResponse,
                attempts,
                "",
            )
            found.extend(answer.operations)
            token = answer.next_page_token
            if not token:
                return tuple(sorted(set(found)))
        raise Unavailable.of(f"the list has more than {_MOST_PAGES} pages")

    # --- blocks and functions

    def task(self, template: str, **options: Unpack[TaskOptions]) -> TaskBlock:
        """Make a block that works on a task of its own: `with` or `async with`.

        The task starts with the block and ends with it: completed, or aborted where an exception leaves it.

        Args:
            template: The template in the bundle.
            options: What else the start says.

        Returns:
            The block.
        """
        return self.tasks.block(template, options)

    @overload
    def guard(
        self,
        operation: str,
        *,
        arguments: Arguments | None = None,
        resource: str = "",
        idempotency_key: str = "",
    ) -> Callable[[Function], Function]: ...

    @overload
    def guard(
        self,
        operation: str,
        *,
        arguments: Arguments | None = None,
        resource: str = "",
        idempotency_key: str = "",
        secret: str,
        report: str = "",
    ) -> Callable[[Callable[..., Result]], Callable[..., Result]]: ...

    @overload
    def guard(
        self,
        operation: str,
        *,
        arguments: Arguments | None = None,
        resource: str = "",
        idempotency_key: str = "",
        report: str,
    ) -> Callable[[Callable[..., Result]], Callable[..., Result]]: ...

    def guard(
        self,
        operation: str,
        *,
        arguments: Arguments | None = None,
        resource: str = "",
        idempotency_key: str = "",
        secret: str = "",
        report: str = "",
    ) -> Callable[[Any], Any]:
        """Decorate a function so that it runs only where its operation is permitted.

        Where the permit is open until somebody tells what came of it, the guard does: when the function returns or raises,
        a generator when it ends. A report that is lost changes nothing of what the function gives.

        Args:
            operation: Its id, `<system>.<name>`.
            arguments: The operation's arguments: a function that takes what the decorated one takes, or a mapping from
                each argument to the parameter that holds it. Default: the parameters by their names.
            resource: The parameter that holds the resource id, where no argument names it.
            idempotency_key: The parameter that holds the key of an enforcer that executes at most once a key: the same key with the
                same arguments gets the same permit, counted once. Likewise no argument.
            secret: The keyword-only parameter that gets the secret of a system that knows no tokens, a `Leased`; it is no parameter for
                whoever calls the function. Needs a task.
            report: The keyword-only parameter that gets the `Report`, to tell labels and amounts by; likewise.

        Returns:
            The decorator.
        """
        return Guard(
            operation,
            arguments,
            resource,
            idempotency_key=idempotency_key,
            secret=secret,
            report=report,
            client=lambda: self,
        ).decorate

    # --- parts of flows

    def caller(self, operation: str, given: Caller | None) -> Caller | None:
        """Tell who is asked about.

        Args:
            operation: What is asked for, for errors.
            given: Who is named; none: that of the block.

        Returns:
            The caller; none: the client itself.

        Raises:
            Denied: There is none, or its request contradicts itself.
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
            deadline: Until when.
            who: The caller; none: the client itself.
            subject_token: On whose behalf.

        Yields:
            What is needed.

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
            attempts: How often.
            operation: What is asked for, for errors.

        Yields:
            What is needed.

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

    def attempts(self, timeout: float | None) -> Attempts:
        """Make the attempts of one question.

        Args:
            timeout: Seconds; none: the client's.

        Returns:
            The attempts.
        """
        seconds = timeout if timeout is not None else self.timeout
        return Attempts(Deadline.within(seconds), self._retries)
