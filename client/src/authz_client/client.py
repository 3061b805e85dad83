"""The client of an application: one class that passes each call to the part that performs it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Self, TypeVar, Unpack, final, overload

from authz_client.approvals import Approvals
from authz_client.arguments import Arguments
from authz_client.base_errors import UsageError
from authz_client.context import Caller
from authz_client.credentials import Credentials, source_of
from authz_client.dpop import ProofKey
from authz_client.flow import arun, run
from authz_client.guard import ClientParts, Guard
from authz_client.issued import TaskCredentials
from authz_client.obligations import Obligations
from authz_client.permit import Permit
from authz_client.questions import CheckOptions, Questions, ToolList
from authz_client.report import ReportResult, Reports
from authz_client.session import Session
from authz_client.tasks import TaskBlock, TaskOptions, Tasks
from authz_client.transport import GrpcTransport, Tls, Transport

__all__ = ["Authz"]

_MOST_RETRIES: Final = 10

Function = TypeVar("Function", bound=Callable[..., Any])
Result = TypeVar("Result")


@final
class Authz:
    """A client of one node, for threads and for asyncio.

    Every refusal and every failure raises, so the code after a question runs only if it was permitted.

    Args:
        address: `host:port` or `unix:///path`.
        credentials: Credential of the client: a token, the path of a file that holds a token (read again when it
            changes), a function, or a source. Default: the client certificate of `tls`.
        enforcer: The client asks about its callers, which `caller(…)` sets; without a caller it refuses to ask.
        tls: TLS settings. Default: plain text.
        credential_issuer: The node's `credentials.issuer`. Credentials are then bound to a key of the client.
        proof_key: Key that credentials are bound to. Default: a new one, made when it is first needed.
        timeout: Seconds for a question, with retries and credentials.
        retries: Further attempts of a question that was not decided, at most 10, within its timeout.
        transport: Transport that carries the calls, instead of an address.
        approval_poll: Seconds between two questions about an approval, where the node or the transport offers no stream.

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
        approval_poll: float = 60.0,
    ) -> None:
        if bool(address) == (transport is not None):
            raise UsageError("give the node's address")
        if enforcer and credentials is not None:
            message = "an enforcer asks about its callers, by their credentials; its own would stand for theirs"
            raise UsageError(message)
        if not 0 < timeout < float("inf") or not 0 <= retries <= _MOST_RETRIES:
            raise UsageError(f"give a timeout above 0, and 0 to {_MOST_RETRIES} retries")
        if not 1 <= approval_poll < float("inf"):
            raise UsageError("give `approval_poll` of at least 1 second: approvals wait for people")
        if transport is None:
            transport = GrpcTransport(address, tls)
        source = source_of(credentials) if credentials is not None else None
        session = Session(
            transport, source=source, enforcer=enforcer, timeout=timeout, retries=retries
        )
        self.obligations = Obligations()
        self.reports = Reports(session)
        self.tasks = Tasks(session)
        approvals = Approvals(session, approval_poll)
        questions = Questions(session, self.reports, approvals)
        self.credentials = TaskCredentials(session, questions, credential_issuer, proof_key)
        self.parts = ClientParts(
            session, questions, self.credentials, self.reports, self.obligations, approvals
        )

    @property
    def transport(self) -> Transport:
        """Transport that carries the calls."""
        return self.parts.session.transport

    # --- life

    def close(self) -> None:
        """Close the connections of threads."""
        self.transport.close()

    async def aclose(self) -> None:
        """Close the connections of this event loop and of threads."""
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
            asked: Further options of the question.

        Returns:
            The permit. The calling code carries out its obligations.

        Raises:
            Denied: The operation may not be performed.
            StepUp: Something must be shown first.
            Unavailable: The node made no decision.
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
            asked: Further options of the question.

        Returns:
            The permit.

        Raises:
            Denied: The operation may not be performed.
            StepUp: Something must be shown first.
            Unavailable: The node made no decision.
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
        returned: object = None,
        timeout: float | None = None,
    ) -> None:
        """Report the result of an operation that `check` permitted; a guard does so by itself.

        Args:
            permit: The permit. Without `reservation_id` nothing is reported.
            result: `ok`, `failed`, or `aborted` if the operation was not tried.
            labels: Labels that the results carry, of those that the operation `yields`. Default: all if the result is `ok`.
            actuals: Amounts spent of reserved sums, by budget.
            returned: Result of the operation, as of `Report.returned`. If the client is an enforcer, the report has the values of it that
                the permit asks for.
            timeout: Seconds. Default: the client's.

        Raises:
            Denied: The result was reported before, counts as done, or another client must report it.
            Unavailable: The node did not answer in time.
        """
        run(
            self.reports.telling(permit, result, labels, actuals, timeout, returned=returned),
            self.parts.session.transport,
        )

    async def areport(
        self,
        permit: Permit,
        result: ReportResult = "ok",
        *,
        labels: Iterable[str] | None = None,
        actuals: Mapping[str, int] | None = None,
        returned: object = None,
        timeout: float | None = None,  # noqa: ASYNC109 - it travels
    ) -> None:
        """As `report`, without blocking the event loop.

        Args:
            permit: The permit. Without `reservation_id` nothing is reported.
            result: `ok`, `failed`, or `aborted` if the operation was not tried.
            labels: Labels that the results carry, of those that the operation `yields`. Default: all if the result is `ok`.
            actuals: Amounts spent of reserved sums, by budget.
            returned: Result of the operation, as of `Report.returned`. If the client is an enforcer, the report has the values of it that
                the permit asks for.
            timeout: Seconds. Default: the client's.

        Raises:
            Denied: The result was reported before, counts as done, or another client must report it.
            Unavailable: The node did not answer in time.
        """
        await arun(
            self.reports.telling(permit, result, labels, actuals, timeout, returned=returned),
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
        """List the operations that could be permitted. The list is not a decision.

        Args:
            system: System of the operations. Default: all.
            task: Task id. Default: the current task.
            caller: Caller that acts. Default: that of the block, or the client itself.
            timeout: Seconds for all pages. Default: the client's.

        Returns:
            Operation ids, sorted.

        Raises:
            Denied: The node refuses the caller.
            Unavailable: The node did not answer in time.
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
            system: System of the operations. Default: all.
            task: Task id. Default: the current task.
            caller: Caller that acts. Default: that of the block, or the client itself.
            timeout: Seconds for all pages. Default: the client's.

        Returns:
            Operation ids, sorted.

        Raises:
            Denied: The node refuses the caller.
            Unavailable: The node did not answer in time.
        """
        return await arun(
            self.parts.questions.listing(system, task, caller, timeout),
            self.parts.session.transport,
        )

    def list_tools(
        self,
        system: str = "",
        *,
        task: str | None = None,
        caller: Caller | None = None,
        timeout: float | None = None,
    ) -> ToolList:
        """List the tools that could be permitted, by their exact names. The list is not a decision.

        Args:
            system: System of the tools. Default: all.
            task: Task id. Default: the current task.
            caller: Caller that acts. Default: that of the block, or the client itself.
            timeout: Seconds for all pages. Default: the client's.

        Returns:
            The tools and their operations.

        Raises:
            Denied: The node refuses the caller.
            Unavailable: The node did not answer in time.
        """
        return run(
            self.parts.questions.listing_tools(system, task, caller, timeout),
            self.parts.session.transport,
        )

    async def alist_tools(
        self,
        system: str = "",
        *,
        task: str | None = None,
        caller: Caller | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - it travels
    ) -> ToolList:
        """As `list_tools`, without blocking the event loop.

        Args:
            system: System of the tools. Default: all.
            task: Task id. Default: the current task.
            caller: Caller that acts. Default: that of the block, or the client itself.
            timeout: Seconds for all pages. Default: the client's.

        Returns:
            The tools and their operations.

        Raises:
            Denied: The node refuses the caller.
            Unavailable: The node did not answer in time.
        """
        return await arun(
            self.parts.questions.listing_tools(system, task, caller, timeout),
            self.parts.session.transport,
        )

    # --- blocks and functions

    def task(self, template: str, **options: Unpack[TaskOptions]) -> TaskBlock:
        """Make a block that works on a task of its own: `with` or `async with`.

        The task starts with the block and ends with it: completed, or aborted where an exception leaves it.

        Args:
            template: The template in the bundle.
            options: Further options of the start.

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
        wait_for_approval: float = 0.0,
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
        wait_for_approval: float = 0.0,
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
        wait_for_approval: float = 0.0,
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
        wait_for_approval: float = 0.0,
    ) -> Callable[[Any], Any]:
        """Decorate a function so that it runs only where its operation is permitted.

        If the permit waits for a report, the guard sends it when the function returns or raises, or when a generator ends.
        A lost report does not change the result of the function.

        Args:
            operation: Its id, `<system>.<name>`.
            arguments: The operation's arguments: a function that takes what the decorated one takes, or a mapping from
                each argument to the parameter that holds it. Default: the parameters by their names.
            resource: The parameter that holds the resource id, where no argument names it.
            idempotency_key: The parameter that holds the key of an enforcer that executes at most once a key: the same key with the
                same arguments gets the same permit, counted once. It is not an argument of the operation.
            secret: The keyword-only parameter that gets the secret (a `Leased`) of a system that does not take tokens. Callers of the
                function do not give it. Requires a task.
            report: The keyword-only parameter that gets the `Report`, for labels and amounts. Callers do not give it either.
            wait_for_approval: Longest wait for a person, in seconds. Afterwards the guard checks the call again. Default: raise `StepUp` at once.

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
            wait_for_approval=wait_for_approval,
            client=lambda: self.parts,
        ).decorate
