"""A function that runs only where its operation is permitted."""

import functools
import inspect
import json
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar, cast, final

from authz_client.approvals import Approvals
from authz_client.arguments import Arguments, Reading
from authz_client.base_errors import UsageError
from authz_client.errors import ApprovalStatus, Denied, StepUp, denied
from authz_client.flow import Deadline, Flow, arun, run
from authz_client.issued import TaskCredentials
from authz_client.obligations import Obligation, Obligations
from authz_client.permit import Permit
from authz_client.questions import CheckOptions, Questions
from authz_client.registered import is_tool
from authz_client.report import Report, ReportResult, Reports
from authz_client.session import Session

__all__ = ["ClientParts", "Guard"]

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class ClientParts:
    """The parts of one client that a guard uses."""

    session: Session
    questions: Questions
    credentials: TaskCredentials
    reports: Reports
    obligations: Obligations
    approvals: Approvals


@dataclass(frozen=True, slots=True)
class _AdmittedCall:
    """A call that may run, with the obligations and the report that follow it."""

    client: ClientParts
    permit: Permit
    due: tuple[Obligation, ...]
    given: dict[str, Any]
    report: Report

    def settled(self, result: Any) -> Any:
        """Carry out the obligations on the result."""
        try:
            return self.client.obligations.after(self.due, result)
        except Exception as error:
            raise _undone(error, self.permit.operation) from error

    def reporting(self, result: ReportResult, returned: object = None) -> Flow[None]:
        """The flow that reports the result, and the value that the caller of the function gets."""
        return self.report.flow(self.client.reports, self.permit, result, returned)


@final
class Guard:
    """Decorates functions.

    Args:
        operation: Id of the operation that the function performs.
        arguments: As of `Authz.guard`.
        resource: The parameter that holds the resource id. Empty if there is none.
        idempotency_key: The parameter that holds the key. Empty if there is none.
        secret: The keyword-only parameter that receives the secret of the system. Empty if there is none.
        report: The keyword-only parameter that receives the report. Empty if there is none.
        wait_for_approval: Longest wait for a person, in seconds. 0: a step-up raises at once.
        client: Returns the parts of the client that asks; called with each call of the function.
    """

    def __init__(
        self,
        operation: str,
        arguments: Arguments | None,
        resource: str,
        *,
        idempotency_key: str,
        secret: str,
        report: str,
        wait_for_approval: float,
        client: Callable[[], ClientParts],
    ) -> None:
        if not 0 <= wait_for_approval < float("inf"):
            raise UsageError("give `wait_for_approval` in seconds, 0 or more")
        self._operation = operation
        self._arguments = arguments
        self._resource = resource
        self._key = idempotency_key
        self._secret = secret
        self._report = report
        self._wait = wait_for_approval
        self._client = client

    def decorate(self, function: Function) -> Function:
        """Decorate a function, of either kind.

        Args:
            function: Function that performs the operation.

        Returns:
            Function that asks first.

        Raises:
            UsageError: Its parameters cannot be the arguments of an operation, or it is a tool already.
        """
        if is_tool(function):
            name = getattr(function, "__qualname__", type(function).__name__)
            raise UsageError(
                f"{name} is a tool already, and the tool would run without a check: write @guard below @tool"
            )
        given = tuple(name for name in (self._secret, self._report) if name)
        apart = tuple(name for name in (self._resource, self._key) if name)
        reading = Reading(function, self._arguments, apart, given)
        if inspect.isasyncgenfunction(function):
            wrapped = self._stream(function, reading)
        elif _is_async(function):
            wrapped = self._async(function, reading)
        elif inspect.isgeneratorfunction(function):
            wrapped = self._rows(function, reading)
        else:
            wrapped = self._sync(function, reading)
        wrapped = functools.wraps(function)(wrapped)
        if given:
            # The caller neither gives nor sees these parameters.
            decorated: Any = wrapped
            decorated.__signature__ = reading.signature
        return cast("Function", wrapped)

    def _sync(self, function: Callable[..., Any], reading: Reading) -> Callable[..., Any]:
        def ask(*args: Any, **kwargs: Any) -> Any:
            client = self._client()
            outcome: ReportResult = "failed"
            returned: Any = None
            call = run(
                self._admitting(client, reading, args, kwargs, results=True),
                client.session.transport,
            )
            try:
                result = function(*args, **kwargs, **call.given)
                outcome = "ok"
                returned = call.settled(result)
                return returned
            finally:
                run(call.reporting(outcome, returned), client.session.transport)

        return ask

    def _async(self, function: Callable[..., Any], reading: Reading) -> Callable[..., Any]:
        async def ask(*args: Any, **kwargs: Any) -> Any:
            client = self._client()
            outcome: ReportResult = "failed"
            returned: Any = None
            flow = self._admitting(client, reading, args, kwargs, results=True)
            call = await arun(flow, client.session.transport)
            try:
                result = await function(*args, **kwargs, **call.given)
                outcome = "ok"
                returned = call.settled(result)
                return returned
            finally:
                await arun(call.reporting(outcome, returned), client.session.transport)

        return ask

    def _rows(self, function: Callable[..., Any], reading: Reading) -> Callable[..., Any]:
        def ask(*args: Any, **kwargs: Any) -> Any:
            client = self._client()
            # The generator object itself is not the result of the operation.
            flow = self._admitting(client, reading, args, kwargs, results=False)
            call = run(flow, client.session.transport)
            return watched(call, function(*args, **kwargs, **call.given))

        def watched(
            call: _AdmittedCall, rows: Generator[Any, Any, Any]
        ) -> Generator[Any, Any, Any]:
            outcome: ReportResult = "failed"
            try:
                result = yield from rows
            except GeneratorExit:
                # The reader stopped early, which is not a failure of the operation.
                outcome = "ok"
                raise
            else:
                outcome = "ok"
                return result
            finally:
                run(call.reporting(outcome), call.client.session.transport)

        return ask

    def _stream(self, function: Callable[..., Any], reading: Reading) -> Callable[..., Any]:
        async def ask(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            client = self._client()
            outcome: ReportResult = "failed"
            flow = self._admitting(client, reading, args, kwargs, results=False)
            call = await arun(flow, client.session.transport)
            try:
                async with aclosing(function(*args, **kwargs, **call.given)) as items:
                    async for item in items:
                        yield item
                outcome = "ok"
            except GeneratorExit:
                # The reader stopped early, which is not a failure of the operation.
                outcome = "ok"
                raise
            finally:
                await arun(call.reporting(outcome), client.session.transport)

        return ask

    def _admitting(
        self,
        client: ClientParts,
        reading: Reading,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        results: bool,
    ) -> Flow[_AdmittedCall]:
        """Ask, and carry out the obligations before the call."""
        judged, apart = reading.read(args, kwargs)
        deadline = Deadline.within(client.session.timeout)
        asked: CheckOptions = {
            "resource": apart.get(self._resource, ""),
            "idempotency_key": apart.get(self._key, ""),
            "supported_obligations": client.obligations.supported(results=results),
        }
        if self._secret:
            asked["wants_credential"] = True
        try:
            permit = yield from client.questions.checking(self._operation, judged, asked)
        except StepUp as step_up:
            asked["approval_id"] = yield from self._waiting(client, step_up)
            # The wait for a person takes longer than the time-out of a check.
            deadline = Deadline.within(client.session.timeout)
            permit = yield from client.questions.checking(self._operation, judged, asked)
        try:
            is_same = reading.read(args, kwargs) == (judged, apart)
            due = self._done_before(client, permit, judged, is_same=is_same)
        except Exception:
            # A permit for a secret counts only once the secret is issued, so there is nothing to abort.
            if not self._secret:
                yield from client.reports.settling(permit, "aborted")
            raise
        given: dict[str, Any] = {}
        if self._secret:
            who = client.session.caller(self._operation, None)
            given[self._secret] = yield from client.credentials.leasing(permit, deadline, who)
        report = Report()
        if self._report:
            given[self._report] = report
        return _AdmittedCall(client, permit, due, given, report)

    def _waiting(self, client: ClientParts, step_up: StepUp) -> Flow[str]:
        """Wait for a person and return the id of the approval."""
        if not self._wait or not step_up.approval_id:
            raise step_up
        status = yield from client.approvals.waiting(step_up, self._wait)
        if status is ApprovalStatus.REJECTED:
            raise denied(
                f"a person rejected it: {step_up.reject_reason or 'no reason given'}",
                operation=self._operation,
                reason_code="APPROVAL_REJECTED",
            )
        if status is not ApprovalStatus.APPROVED:
            raise step_up
        return step_up.approval_id

    def _done_before(
        self, client: ClientParts, permit: Permit, judged: bytes, *, is_same: bool
    ) -> tuple[Obligation, ...]:
        """Carry out the obligations before the call; return all obligations."""
        # INVARIANT (what is judged is what runs): another thread or task may have changed a list meanwhile.
        if not is_same:
            raise denied("the arguments changed while they were judged", operation=self._operation)
        given = json.loads(judged) if permit.obligations else {}
        due = tuple(
            Obligation(name, self._operation, given, permit.decision_id)
            for name in permit.obligations
        )
        try:
            client.obligations.before(due)
        except Exception as error:
            raise _undone(error, self._operation) from error
        return due


def _undone(error: Exception, operation: str) -> Denied:
    message = f"an obligation could not be done: {type(error).__name__}"
    return denied(message, operation=operation)


def _is_async(function: Callable[..., Any]) -> bool:
    if isinstance(function, functools.partial):
        return _is_async(function.func)
    called = getattr(function, "__call__", None)  # noqa: B004 - looks at the method
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)
