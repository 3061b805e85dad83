"""Tools of the OpenAI Agents SDK that wait for a person, by the SDK's own approvals: `interruptions` of a run.

    from agents import Agent, Runner, function_tool
    from authz_client.integrations.openai_agents import GuardedTools

    guarded = GuardedTools(authz)

    @function_tool
    def send(to: str, body: str) -> str: ...

    agent = Agent(name="mail", tools=[guarded.tool(send, "mail.send")])

    result = await Runner.run(agent, "…")
    while result.interruptions:
        state = result.to_state()
        await guarded.answer(state)
        result = await Runner.run(agent, state)

The state can be stored with `to_string` and continued in another process. The approval of the SDK alone permits nothing: the tool runs only
after a check at Authz.
"""

import copy
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, final

from agents import FunctionTool, RunContextWrapper, RunState
from agents.items import ToolApprovalItem
from agents.tool_context import ToolContext

from authz_client.approval_texts import tell_rejection
from authz_client.arguments import encoded
from authz_client.base_errors import UsageError
from authz_client.client import Authz
from authz_client.errors import ApprovalStatus, Refused, StepUp, Unavailable, denied
from authz_client.integrations._held import ENDS, held_call, refusal_text
from authz_client.obligations import Obligation
from authz_client.permit import Permit

__all__ = ["GuardedTools"]

_log: Final = logging.getLogger("authz_client")
_MOST_CALLS: Final = 1_024
_FRESH_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class _Asked:
    """Answer of the node to a call that has not run."""

    judged: bytes
    answer: Permit | Refused
    at: float

    def is_for(self, judged: bytes) -> bool:
        """Return whether the answer is still valid for a call. The SDK runs a permitted call at once, and a step-up has a longer wait."""
        if self.judged != judged:
            return False
        return isinstance(self.answer, StepUp) or time.monotonic() < self.at + _FRESH_SECONDS


@final
class GuardedTools:
    """Guards the tools of agents.

    Args:
        authz: Client of the agent.
    """

    def __init__(self, authz: Authz) -> None:
        self._authz = authz
        self._operations: dict[str, str] = {}
        # Answers of the node to calls that have not run, by call id. A call that is missing here is checked when it runs.
        self._asked: OrderedDict[str, _Asked] = OrderedDict()

    def tool(self, tool: FunctionTool, operation: str) -> FunctionTool:
        """Guard a tool. Its arguments are the arguments of the operation.

        Args:
            tool: The tool, as `function_tool` makes it.
            operation: Operation id.

        Returns:
            A tool that checks each call at Authz, and interrupts the run if a person must approve the call.

        Raises:
            UsageError: The tool has approvals of its own, or another tool has the name.
        """
        if tool.needs_approval is not False:
            raise UsageError(f"{tool.name} has `needs_approval`: leave it out, the policies decide")
        if self._operations.setdefault(tool.name, operation) != operation:
            raise UsageError(f"two tools are named {tool.name}")
        run = tool.on_invoke_tool
        guarded = copy.copy(tool)

        async def needs_approval(
            _: RunContextWrapper[Any], params: dict[str, Any], call_id: str
        ) -> bool:
            answer = await self._ask(call_id, operation, params)
            return isinstance(answer, StepUp) and bool(answer.approval_id)

        async def invoke(context: ToolContext[Any], text: str) -> Any:
            try:
                params = json.loads(text or "{}")
                asked = self._asked.get(context.tool_call_id)
                if asked is not None and isinstance(asked.answer, StepUp):
                    # The application resumed the run, so the call is checked again.
                    del self._asked[context.tool_call_id]
                answer = await self._ask(context.tool_call_id, operation, params)
                self._asked.pop(context.tool_call_id, None)
                if isinstance(answer, Refused):
                    raise answer
                return await self._run(answer, params, lambda: run(context, text))
            except Refused as refused:
                return refusal_text(refused)

        guarded.needs_approval = needs_approval
        guarded.on_invoke_tool = invoke
        return guarded

    def held(self, item: ToolApprovalItem) -> dict[str, Any] | None:
        """Describe the call of an interruption, for example to show its page to the user.

        Args:
            item: An interruption of a run.

        Returns:
            `approval_id`, `operation`, `url`, `code`, `kinds` and `expires_at`. None if the call no longer needs a person, or if another
            process made the call and `answer` has not run yet.
        """
        asked = self._asked.get(item.call_id or "")
        if asked is None or not isinstance(asked.answer, StepUp) or not asked.answer.approval_id:
            return None
        return held_call(asked.answer)

    async def answer(
        self,
        state: RunState[Any, Any],
        timeout: float | None = None,  # noqa: ASYNC109 - the flow applies the time-out
    ) -> bool:
        """Wait for the people who must approve the calls of a state, and put their answers into the state.

        Args:
            state: State of an interrupted run.
            timeout: Longest wait for each call, in seconds. Default: until its approval ends.

        Returns:
            Whether every call has an answer. A rejected call has one too: the model gets the text of the rejection.

        Raises:
            Refused: The node refuses the caller, or cannot be reached.
        """
        is_whole = True
        for item in state.get_interruptions():
            operation = self._operations.get(item.tool_name or "")
            if operation is None or not item.call_id:
                is_whole = False
                continue
            params = json.loads(getattr(item.raw_item, "arguments", None) or "{}")
            answer = await self._ask(item.call_id, operation, params)
            status = ApprovalStatus.APPROVED
            if isinstance(answer, StepUp) and answer.approval_id:
                status = await answer.wait_async(timeout)
                if status is not ApprovalStatus.PENDING:
                    self._asked.pop(item.call_id, None)
            if status is ApprovalStatus.PENDING:
                is_whole = False
            elif status is ApprovalStatus.APPROVED:
                state.approve(item)
            elif status is ApprovalStatus.REJECTED:
                text = await self._rejected(answer, item.call_id, operation, params)
                state.reject(item, rejection_message=text)
            else:
                state.reject(item, rejection_message=ENDS[status])
        return is_whole

    async def _rejected(
        self, step_up: Permit | Refused, call_id: str, operation: str, params: Mapping[str, Any]
    ) -> str:
        """Return the text of a rejection. The refusal of the node has the reason of the person."""
        refused = await self._ask(call_id, operation, params)
        self._asked.pop(call_id, None)
        if not isinstance(refused, Refused) or not isinstance(step_up, StepUp):
            return "A person rejected it."
        tell_rejection(refused, step_up)
        return refusal_text(refused)

    async def _ask(
        self, call_id: str, operation: str, params: Mapping[str, Any]
    ) -> Permit | Refused:
        """Check a call once before it runs. Every failure is a refusal."""
        try:
            judged = encoded(params)
        except UsageError as error:
            return denied(str(error), operation=operation, reason_code="BAD_INPUT")
        asked = self._asked.get(call_id)
        # INVARIANT (what is judged is what runs): an answer counts only for the same call with the same arguments.
        if asked is not None and asked.is_for(judged):
            return asked.answer
        answer: Permit | Refused
        try:
            answer = await self._authz.acheck(
                operation, judged, supported_obligations=self._authz.obligations.supported()
            )
        except Refused as refused:
            answer = refused
        except Exception as error:  # noqa: BLE001 - a failure of this process permits nothing
            answer = Unavailable.of(f"{type(error).__name__}: {error}", operation)
        self._asked[call_id] = _Asked(judged, answer, time.monotonic())
        while len(self._asked) > _MOST_CALLS:
            self._asked.popitem(last=False)
        return answer

    async def _run(self, permit: Permit, params: Mapping[str, Any], run: Any) -> Any:
        """Run a permitted tool with its obligations, and report the result."""
        outcome: Literal["ok", "failed", "aborted"] = "aborted"
        returned: Any = None
        obligations = self._authz.obligations
        due = tuple(
            Obligation(name, permit.operation, dict(params), permit.decision_id)
            for name in permit.obligations
        )
        try:
            try:
                obligations.before(due)
            except Exception as error:
                raise _undone(error, permit) from error
            outcome = "failed"
            result = await run()
            outcome = "ok"
            try:
                returned = obligations.after(due, result)
            except Exception as error:
                raise _undone(error, permit) from error
            return returned
        finally:
            try:
                await self._authz.areport(permit, outcome, returned=returned)
            except Exception as error:  # noqa: BLE001 - the tool has run, so a failed report must not hide its result
                _log.warning("the report of decision %s was lost: %s", permit.decision_id, error)


def _undone(error: Exception, permit: Permit) -> Refused:
    what = f"an obligation could not be done: {type(error).__name__}"
    return denied(what, operation=permit.operation)
