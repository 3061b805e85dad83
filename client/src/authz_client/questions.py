"""The two questions of the API `Authorizer`: whether an operation may be performed, and which ones could be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypedDict, final

from authz_client.approvals import Approvals
from authz_client.arguments import encoded
from authz_client.context import Caller, current_task
from authz_client.credentials import Credentials
from authz_client.errors import PublicCode, Refused, Retry, StepUp, Unavailable, denied
from authz_client.flow import Deadline, Flow
from authz_client.obligations import is_supported
from authz_client.permit import Permit, permit_of
from authz_client.report import Reports
from authz_client.session import Session
from authz_client.v1 import authorizer_pb2, decision_pb2

__all__ = ["CheckOptions", "Questions", "ToolList"]

_AUTHORIZER: Final = "authz.v1.Authorizer"
_MOST_PAGES: Final = 100


class CheckOptions(TypedDict, total=False):
    """Options of a question."""

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
    """Task id. Default: the current task."""
    caller: Caller
    """Caller that acts. Default: that of the block, or the client itself."""
    subject_token: Credentials
    """Token of the subject. Default: the subject of the task."""
    supported_obligations: Sequence[str]
    """Obligations that the calling code carries out itself. Default: none, so that a permit with an obligation is a denial."""
    tool: str
    """Exact name of the tool that the call runs, from an enforcer in front of an MCP server. An operation that is not the operation
    of this tool in the catalog is then refused. Default: the question is about the operation itself."""
    confidence_jws: str
    """Statement of a guard about this very call, signed. Default: none, so that the confidence is 0."""
    approval_id: str
    """Approval of this very call, `StepUp.approval_id`. Default: the node finds it by the task and the call."""
    idempotency_key: str
    """Key for an enforcer that executes at most once for each key."""
    wants_credential: bool
    """Keep the permit for a credential; the system that the credential is shown to performs the operation."""
    probe: bool
    """Ask without effect. Requires a permit for `authz.probe`."""
    timeout: float
    """Seconds. Default: the client's."""


@dataclass(frozen=True, slots=True)
class ToolList:
    """Operations that could be permitted, and their tools."""

    operations: frozenset[str]
    """Operation ids, also of a split operation of which a case could be permitted."""
    tools: frozenset[tuple[str, str]]
    """System and exact name of each tool."""

    def has_tool(self, system: str, name: str) -> bool:
        """Tell whether a tool could be permitted.

        Args:
            system: System of the MCP server in the catalog.
            name: Name of the tool, as its server gives it.
        """
        return (system, name) in self.tools


@final
class Questions:
    """Questions of one client.

    Args:
        session: Calls the node.
        reports: Ends a permit that the client cannot use.
        approvals: Waits for the answers to step-ups.
    """

    def __init__(self, session: Session, reports: Reports, approvals: Approvals) -> None:
        self._session = session
        self._reports = reports
        self._approvals = approvals

    def checking(
        self, operation: str, arguments: Mapping[str, Any] | bytes | None, asked: CheckOptions
    ) -> Flow[Permit]:
        """The flow of one question.

        Args:
            operation: Operation id.
            arguments: Arguments of the operation.
            asked: Further options of the question.

        Yields:
            Steps to perform.

        Returns:
            The permit.

        Raises:
            Refused: The call is not permitted.
        """
        deadline = Deadline.within(asked.get("timeout", self._session.timeout))
        who = self._session.caller(operation, asked.get("caller"))
        evidence = yield from self._session.evidence(deadline, who, asked.get("subject_token"))
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
            confidence_jws=asked.get("confidence_jws", ""),
            approval_id=asked.get("approval_id", ""),
            idempotency_key=asked.get("idempotency_key", ""),
            supported_obligations=asked.get("supported_obligations", ()),
            mode=decision_pb2.MODE_PROBE if asked.get("probe") else decision_pb2.MODE_ENFORCE,
            wants_credential=asked.get("wants_credential", False),
            tool=asked.get("tool", ""),
            http_method=who.http_method if who is not None else "",
            http_uri=who.http_uri if who is not None else "",
        ).SerializeToString()
        attempts = self._session.attempts_until(deadline)
        while True:
            answer = yield from self._session.calling(
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
                    if isinstance(refused, StepUp):
                        self._approvals.bind(refused, who, asked.get("subject_token"))
                    raise
                yield pause
                continue
            deadline.left()
            supported = asked.get("supported_obligations", ())
            missing = [one for one in permit.obligations if not is_supported(one, supported)]
            if missing:
                if not asked.get("wants_credential", False):
                    yield from self._reports.settling(permit, "aborted")
                message = f"nothing here does the obligation `{min(missing)}`"
                raise denied(message, operation=operation)
            return permit

    def listing(
        self, system: str, task: str | None, caller: Caller | None, timeout: float | None
    ) -> Flow[tuple[str, ...]]:
        """The flow of one list.

        Args:
            system: Only operations of this system; empty: of all.
            task: Task id. Default: the current task.
            caller: Agent that acts. Default: that of the block, or the client itself.
            timeout: Seconds for all pages. Default: the client's.

        Yields:
            Steps to perform.

        Returns:
            Operation ids, sorted.

        Raises:
            Refused: The caller is refused, or there is no answer.
        """
        request = authorizer_pb2.ListRequest(system=system)
        pages = yield from self._pages(request, task, caller, timeout)
        return tuple(sorted({operation for page in pages for operation in page.operations}))

    def listing_tools(
        self, system: str, task: str | None, caller: Caller | None, timeout: float | None
    ) -> Flow[ToolList]:
        """The flow of one list of tools.

        Args:
            system: Only tools of this system; empty: of all.
            task: Task id. Default: the current task.
            caller: Agent that acts. Default: that of the block, or the client itself.
            timeout: Seconds for all pages. Default: the client's.

        Yields:
            Steps to perform.

        Returns:
            The tools.

        Raises:
            Refused: The caller is refused, or there is no answer.
        """
        request = authorizer_pb2.ListRequest(system=system, wants_tools=True)
        pages = yield from self._pages(request, task, caller, timeout)
        operations = {operation for page in pages for operation in page.operations}
        tools = [tool for page in pages for tool in page.tools]
        return ToolList(
            frozenset(operations.union(tool.operation for tool in tools)),
            frozenset((tool.system, tool.name) for tool in tools),
        )

    def _pages(
        self,
        request: authorizer_pb2.ListRequest,
        task: str | None,
        caller: Caller | None,
        timeout: float | None,
    ) -> Flow[list[authorizer_pb2.ListResponse]]:
        """The flow of all pages of one list."""
        deadline = Deadline.within(timeout if timeout is not None else self._session.timeout)
        attempts = self._session.attempts_until(deadline)
        who = self._session.caller("", caller)
        request.evidence.extend((yield from self._session.evidence(deadline, who, None)))
        request.task = task or (who.task if who is not None else current_task()) or ""
        pages: list[authorizer_pb2.ListResponse] = []
        for _ in range(_MOST_PAGES):
            answer = yield from self._session.calling(
                f"{_AUTHORIZER}/List",
                request.SerializeToString(),
                authorizer_pb2.ListResponse,
                attempts,
                "",
            )
            pages.append(answer)
            request.page_token = answer.next_page_token
            if not request.page_token:
                return pages
        raise Unavailable.of(f"the list has more than {_MOST_PAGES} pages")
