"""The client of an application: one class that passes each call to the part that performs it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Self, TypeVar, Unpack, final, overload

from authz.base_errors import UsageError
from authz.client.arguments import Arguments
from authz.client.context import Caller
from authz.client.credentials import Credentials, source_of
from authz.client.dpop import ProofKey
from authz.client.flow import arun, run
from authz.client.guard import ClientParts, Guard
from authz.client.issued import TaskCredentials
from authz.client.obligations import Obligations
from authz.client.permit import Permit
from authz.client.questions import CheckOptions, Questions
from authz.client.report import ReportResult, Reports
from authz.client.session import Session
from authz.client.tasks import TaskBlock, TaskOptions, Tasks
from authz.client.transport import GrpcTransport, Tls, Transport

__all__ = ["Authz"]

_MOST_RETRIES: Final = 10

Function = TypeVar("Function", bound=Callable[..., Any])
Result = TypeVar("Result")


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
        if transport is None:
            transport = GrpcTransport(address, tls)
        source = source_of(credentials) if credentials is not None else None
        session = Session(
            transport, source=source, enforcer=enforcer, timeout=timeout, retries=retries
        )
        self.obligations = Obligations()
        self.reports = Reports(session)
        self.tasks = Tasks(session)
        questions = Questions(session, self.reports)
        self.credentials = TaskCredentials(session, questions, credential_issuer, proof_key)
        self.parts = ClientParts(
            session, questions, self.credentials, self.reports, self.obligations
        )

    @property
    def transport(self) -> Transport:
        """Transport that carries the calls."""
        return self.parts.session.transport

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
        **asked: Unpack[CheckOptions],
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
        return run(
            self.parts.questions.checking(operation, arguments, asked), self.parts.session.transport
        )

    async def acheck(
        self,
        operation: str,
        arguments: Mapping[str, Any] | bytes | None = None,
        **asked: Unpack[CheckOptions],
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
        return await arun(
            self.parts.questions.checking(operation, arguments, asked), self.parts.session.transport
        )

    def report(
        self,
        permit: Permit,
        result: ReportResult = "ok",
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
        run(
            self.reports.telling(permit, result, labels, actuals, timeout),
            self.parts.session.transport,
        )

    async def areport(
        self,
        permit: Permit,
        result: ReportResult = "ok",
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
        await arun(
            self.reports.telling(permit, result, labels, actuals, timeout),
            self.parts.session.transport,
        )

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
        return run(
            self.parts.questions.listing(system, task, caller, timeout),
            self.parts.session.transport,
        )

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
        return await arun(
            self.parts.questions.listing(system, task, caller, timeout),
            self.parts.session.transport,
        )

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
            client=lambda: self.parts,
        ).decorate
