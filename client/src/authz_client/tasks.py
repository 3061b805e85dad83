"""Tasks: authority that is given by starting one, and lost when it ends."""

import asyncio
import uuid
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from types import TracebackType
from typing import Any, Final, TypeAlias, TypedDict, TypeVar, Unpack, final

from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from authz_client.base_errors import UsageError
from authz_client.context import enter, leave
from authz_client.credentials import Credentials
from authz_client.errors import Refused, Unavailable
from authz_client.flow import Attempts, Flow, arun, run
from authz_client.session import Session
from authz_client.v1 import tasks_pb2

__all__ = [
    "Between",
    "DelegateOptions",
    "Ending",
    "OneOf",
    "Part",
    "Prefix",
    "SaidBy",
    "Scope",
    "Task",
    "TaskBlock",
    "TaskOptions",
    "Tasks",
]

Result = TypeVar("Result")

_SERVICE: Final = "authz.v1.Tasks"
# What says that there is nothing left to end.
_GONE: Final = ("TASK_ENDED", "UNKNOWN_TASK")


class Ending(StrEnum):
    """Status that a task ends with."""

    COMPLETED = "COMPLETED"
    ABORTED = "ABORTED"
    REVOKED = "REVOKED"


class SaidBy(StrEnum):
    """Origin of a part of a prompt."""

    USER = "USER"
    """Words of the user. Only destinations in these count as named."""
    QUOTED = "QUOTED"
    """Text that the user quotes, for example a pasted mail or an attached file."""
    OTHER = "OTHER"
    """Any other text, for example instructions of the program."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a prompt."""

    text: str
    """The text."""
    said_by: SaidBy = SaidBy.USER
    """Origin of the text."""

    def message(self) -> tasks_pb2.PromptPart:
        """Write it for the wire.

        Returns:
            The message.
        """
        said_by = tasks_pb2.SaidBy.Value(f"SAID_BY_{self.said_by.value}")
        return tasks_pb2.PromptPart(text=self.text, said_by=said_by)


Prompt: TypeAlias = str | Sequence[Part]


@dataclass(frozen=True, slots=True)
class OneOf:
    """The argument is one of these strings."""

    values: tuple[str, ...]

    def __init__(self, *values: str) -> None:
        object.__setattr__(self, "values", values)


@dataclass(frozen=True, slots=True)
class Between:
    """The argument is an integer from `minimum` to `maximum`, both included."""

    minimum: int
    maximum: int


@dataclass(frozen=True, slots=True)
class Prefix:
    """The argument is a string with this prefix."""

    text: str


Limit: TypeAlias = OneOf | Between | Prefix


@dataclass(frozen=True, slots=True)
class Scope:
    """One entry of a task's scope. Every field narrows it."""

    operation: str
    """Operation id."""
    collections: Collection[str] = ()
    """Any of these collections; empty: all."""
    ids: Collection[str] = ()
    """Any of these resource ids; empty: all."""
    path_prefix: str = ""
    """A path prefix on segment boundaries."""
    label_ceiling: Collection[str] = ()
    """Labels that the resource may carry at most."""
    arguments: Mapping[str, Limit] = field(default_factory=dict)
    """Limits on arguments, by JSON pointer."""
    uses: int = 0
    """Number of uses. Default (0): that of the template."""

    def message(self) -> tasks_pb2.ScopeEntry:
        """Write it for the wire.

        Returns:
            The message.
        """
        entry = tasks_pb2.ScopeEntry(operation=self.operation, uses=self.uses)
        if self.collections or self.ids or self.path_prefix or self.label_ceiling:
            entry.resources.CopyFrom(
                tasks_pb2.ResourceSelector(
                    collections=self.collections,
                    ids=self.ids,
                    path_prefix=self.path_prefix,
                    label_ceiling=self.label_ceiling,
                )
            )
        for pointer, limit in self.arguments.items():
            match limit:
                case OneOf(values):
                    entry.arguments[pointer].one_of.values.extend(values)
                case Between(minimum, maximum):
                    entry.arguments[pointer].range.minimum = minimum
                    entry.arguments[pointer].range.maximum = maximum
                case Prefix(text):
                    entry.arguments[pointer].prefix = text
        return entry


class DelegateOptions(TypedDict, total=False):
    """Options of a delegation."""

    template: str
    """Another template than the parent's."""
    params: Mapping[str, Any]
    """Parameters of the template."""
    scope: Sequence[Scope | str]
    """Narrower scope than the parent's. A string is an operation id with the parent's limits. Limits that a `Scope` leaves
    open come from the parent's entry of the same operation."""
    deadline: timedelta | datetime
    """Earlier end than the parent's."""
    timeout: float
    """Seconds for a call. Default: the client's."""


class TaskOptions(TypedDict, total=False):
    """Options of a start."""

    params: Mapping[str, Any]
    """Parameters of the template."""
    subject_token: Credentials
    """Token of the subject of the task. Default: the starter acts for itself."""
    prompt: Prompt
    """The user's words, or parts that say whose text each is. The server keeps keyed hashes of the addresses that the user's
    parts name, and not the words. They count as the user's where the client is a front end (an enforcer with
    `relays: [prompt]`), or shows no agent's credential and a `subject_token` that no agent gets (`alone_audience`); of a
    harness up to tier standard. An agent's own word is a claim, and trusts nothing: see `Task.named`."""
    scope: Sequence[Scope | str]
    """Narrower scope than the template's. A string is an operation without limits, which is refused if the template has limits for it."""
    assignee: str
    """SPIFFE id of the agent that gets the task. Default: the starter."""
    deadline: timedelta | datetime
    """Earlier end than the template's."""
    timeout: float
    """Seconds for a call. Default: the client's."""


@final
class Task:
    """A task, as the node described it last.

    Args:
        tasks: Tasks of the client.
        message: Description of the node.
        timeout: Seconds for a call. Default: the client's.
    """

    def __init__(self, tasks: "Tasks", message: tasks_pb2.Task, timeout: float | None) -> None:
        self._tasks = tasks
        self._timeout = timeout
        self.message = message

    def __repr__(self) -> str:
        return f"Task({self.id}, {self.message.template})"

    @property
    def id(self) -> str:
        """Task id. It is not a secret."""
        return self.message.id

    @property
    def template(self) -> str:
        """Its template."""
        return self.message.template

    @property
    def session(self) -> str:
        """The session that the whole tree shares."""
        return self.message.session

    @property
    def assignee(self) -> str:
        """SPIFFE id of the agent that has the task."""
        return self.message.assignee

    @property
    def depth(self) -> int:
        """Number of delegations from the root task."""
        return self.message.depth

    @property
    def deadline(self) -> datetime:
        """Time at which it ends at the latest."""
        return self.message.deadline.ToDatetime(UTC)

    def delegate(self, assignee: str, **options: Unpack[DelegateOptions]) -> "TaskBlock":
        """Make a block that delegates a part of this task: `with` or `async with`.

        The child starts with the block and ends with it. Within the block, outgoing calls carry the child's id, and guarded
        functions still belong to this task.

        Args:
            assignee: The agent that gets the child, as a SPIFFE id.
            options: Further options of the delegation.

        Returns:
            The block.
        """
        return self._tasks.child_block(self.message, assignee, options)

    @property
    def named(self) -> int:
        """Number of destinations that count as named by the user."""
        return self.message.named

    @property
    def claimed(self) -> int:
        """Number of destinations that an agent claims the user named. They do not count as trusted."""
        return self.message.claimed

    def extend(self, prompt: Prompt, *, subject_token: Credentials | None = None) -> None:
        """Add the destinations that a further prompt of the user names; scope, deadline and tier stay.

        Args:
            prompt: Prompt of the user, or its parts, which count as those of a start do.
            subject_token: Token of the task's subject. Default: that of the context.

        Raises:
            Refused: The node refuses.
        """
        attempts = self._tasks.session.attempts(self._timeout)
        flow = self._tasks.extending(self.id, prompt, attempts, subject_token)
        self.message = run(flow, self._tasks.session.transport)

    async def aextend(self, prompt: Prompt, *, subject_token: Credentials | None = None) -> None:
        """As `extend`, without blocking the event loop.

        Args:
            prompt: Prompt of the user, or its parts.
            subject_token: Token of the task's subject. Default: that of the context.

        Raises:
            Refused: The node refuses.
        """
        attempts = self._tasks.session.attempts(self._timeout)
        flow = self._tasks.extending(self.id, prompt, attempts, subject_token)
        self.message = await arun(flow, self._tasks.session.transport)


@final
class Tasks:
    """The methods of `authz.v1.Tasks`.

    Args:
        session: Calls the node.
    """

    def __init__(self, session: Session) -> None:
        self.session = session

    def block(self, template: str, options: TaskOptions) -> "TaskBlock":
        """Make the block of a root task.

        Args:
            template: The template.
            options: Further options of the start.

        Returns:
            The block.
        """
        request = _start_request(template, options)
        timeout, subject = options.get("timeout"), options.get("subject_token")
        return TaskBlock(self, lambda: self._starting(request, subject, timeout), timeout)

    def start(self, template: str, **options: Unpack[TaskOptions]) -> Task:
        """Start a root task without a block, for example as a front end for an agent.

        Args:
            template: The template.
            options: Further options of the start.

        Returns:
            The task. Its agent ends it, or its deadline does.

        Raises:
            Refused: The node refuses.
        """
        timeout = options.get("timeout")
        request = _start_request(template, options)
        flow = self._starting(request, options.get("subject_token"), timeout)
        return Task(self, run(flow, self.session.transport), timeout)

    async def astart(self, template: str, **options: Unpack[TaskOptions]) -> Task:
        """As `start`, without blocking the event loop.

        Args:
            template: The template.
            options: Further options of the start.

        Returns:
            The task.

        Raises:
            Refused: The node refuses.
        """
        timeout = options.get("timeout")
        request = _start_request(template, options)
        flow = self._starting(request, options.get("subject_token"), timeout)
        return Task(self, await arun(flow, self.session.transport), timeout)

    def child_block(
        self, parent: tasks_pb2.Task, assignee: str, options: DelegateOptions
    ) -> "TaskBlock":
        """Make the block of a child.

        Args:
            parent: The parent.
            assignee: The agent that gets it.
            options: Further options of the delegation.

        Returns:
            The block.
        """
        request = tasks_pb2.DelegateRequest(
            parent=parent.id,
            assignee=assignee,
            template=options.get("template", ""),
            scope=_below(parent.scope, options.get("scope", ())),
            params=_params(options.get("params")),
            deadline=_deadline(options.get("deadline")),
            idempotency_key=uuid.uuid4().hex,
        )
        timeout = options.get("timeout")
        return TaskBlock(
            self, lambda: self._delegating(request, timeout), timeout, parent=parent.id
        )

    def end(
        self, task: str, status: Ending = Ending.COMPLETED, *, timeout: float | None = None
    ) -> int:
        """End a task and its descendants, for example a task that another process started.

        Args:
            task: Its id.
            status: Status that the task ends with.
            timeout: Seconds. Default: the client's.

        Returns:
            Number of tasks that ended; 0 if the task had ended before.

        Raises:
            Refused: The node refuses.
        """
        flow = self.ending(task, status, self.session.attempts(timeout))
        return run(flow, self.session.transport)

    async def aend(
        self,
        task: str,
        status: Ending = Ending.COMPLETED,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it travels
    ) -> int:
        """As `end`, without blocking the event loop.

        Args:
            task: Its id.
            status: Status that the task ends with.
            timeout: Seconds. Default: the client's.

        Returns:
            Number of tasks that ended; 0 if the task had ended before.

        Raises:
            Refused: The node refuses.
        """
        flow = self.ending(task, status, self.session.attempts(timeout))
        return await arun(flow, self.session.transport)

    # --- flows

    def _starting(
        self,
        request: tasks_pb2.StartRequest,
        subject_token: Credentials | None,
        timeout: float | None,
    ) -> Flow[tasks_pb2.Task]:
        attempts = self.session.attempts(timeout)
        evidence = yield from self.session.evidence(attempts.deadline, None, subject_token)
        request.evidence.extend(evidence)
        answer = yield from self._call("Start", request, tasks_pb2.StartResponse, attempts)
        return _told(answer)

    def _delegating(
        self, request: tasks_pb2.DelegateRequest, timeout: float | None
    ) -> Flow[tasks_pb2.Task]:
        attempts = self.session.attempts(timeout)
        request.evidence.extend((yield from self.session.evidence(attempts.deadline, None, None)))
        answer = yield from self._call("Delegate", request, tasks_pb2.DelegateResponse, attempts)
        return _told(answer)

    def extending(
        self,
        task: str,
        prompt: Prompt,
        attempts: Attempts,
        subject_token: Credentials | None = None,
    ) -> Flow[tasks_pb2.Task]:
        """The flow of `extend`.

        Args:
            task: Its id.
            prompt: Prompt of the user, or its parts.
            attempts: Attempts that are left.
            subject_token: The token of the task's subject.

        Yields:
            Steps to perform.

        Returns:
            The task.
        """
        request = tasks_pb2.ExtendRequest(task=task, **_prompt(prompt))
        evidence = yield from self.session.evidence(attempts.deadline, None, subject_token)
        request.evidence.extend(evidence)
        answer = yield from self._call("Extend", request, tasks_pb2.ExtendResponse, attempts)
        return _told(answer)

    def ending(self, task: str, status: Ending, attempts: Attempts) -> Flow[int]:
        """The flow of `end`.

        Args:
            task: Its id.
            status: Status that the task ends with.
            attempts: Attempts that are left.

        Yields:
            Steps to perform.

        Returns:
            Number of tasks that ended.
        """
        value = tasks_pb2.TaskStatus.Value(f"TASK_STATUS_{status.value}")
        request = tasks_pb2.EndRequest(task=task, status=value)
        request.evidence.extend((yield from self.session.evidence(attempts.deadline, None, None)))
        try:
            answer = yield from self._call("End", request, tasks_pb2.EndResponse, attempts)
        except Refused as refused:
            if refused.reason_code in _GONE:
                return 0
            raise
        ended: int = answer.ended
        return ended

    def _call(self, method: str, request: Any, kind: type[Any], attempts: Attempts) -> Flow[Any]:
        operation = f"{_SERVICE}/{method}"
        encoded = request.SerializeToString()
        return (yield from self.session.calling(operation, encoded, kind, attempts, operation))


def _told(answer: Any) -> tasks_pb2.Task:
    task: tasks_pb2.Task = answer.task
    if not task.id:
        raise Unavailable.of("the answer names no task")
    return task


def _start_request(template: str, options: TaskOptions) -> tasks_pb2.StartRequest:
    return tasks_pb2.StartRequest(
        template=template,
        **_prompt(options.get("prompt", "")),
        assignee=options.get("assignee", ""),
        scope=_scope(options.get("scope", ())),
        params=_params(options.get("params")),
        deadline=_deadline(options.get("deadline")),
        idempotency_key=uuid.uuid4().hex,
    )


def _prompt(prompt: Prompt) -> dict[str, Any]:
    """The fields of a request that hold a prompt."""
    if isinstance(prompt, str):
        return {"prompt": prompt}
    return {"prompt_parts": [part.message() for part in prompt]}


def _scope(scope: Sequence[Scope | str]) -> list[tasks_pb2.ScopeEntry]:
    return [(Scope(one) if isinstance(one, str) else one).message() for one in scope]


def _below(
    parent: Iterable[tasks_pb2.ScopeEntry], scope: Sequence[Scope | str]
) -> list[tasks_pb2.ScopeEntry]:
    """Make the scope of a child. Without a limit of the parent, it would ask for more than the parent has, and be refused."""
    found: list[tasks_pb2.ScopeEntry] = []
    for one in scope:
        entry = (Scope(one) if isinstance(one, str) else one).message()
        above = [wide for wide in parent if wide.operation == entry.operation]
        if isinstance(one, str) and above:
            found.extend(above)
            continue
        if len(above) == 1:
            (wide,) = above
            if wide.HasField("resources"):
                _narrow(wide.resources, entry.resources)
            for pointer in wide.arguments:
                if pointer not in entry.arguments:
                    entry.arguments[pointer].CopyFrom(wide.arguments[pointer])
        found.append(entry)
    return found


def _narrow(wide: tasks_pb2.ResourceSelector, narrow: tasks_pb2.ResourceSelector) -> None:
    narrow.collections.extend(() if narrow.collections else wide.collections)
    narrow.label_ceiling.extend(() if narrow.label_ceiling else wide.label_ceiling)
    narrow.path_prefix = narrow.path_prefix or ("" if narrow.ids else wide.path_prefix)
    narrow.ids.extend(() if narrow.ids else wide.ids)


def _params(params: Mapping[str, Any] | None) -> Struct | None:
    if params is None:
        return None
    made = Struct()
    try:
        made.update(dict(params))
    except (TypeError, ValueError) as error:
        raise UsageError(f"the parameters cannot be written as JSON: {error}") from error
    return made


def _deadline(deadline: timedelta | datetime | None) -> Timestamp | None:
    if deadline is None:
        return None
    at = datetime.now(UTC) + deadline if isinstance(deadline, timedelta) else deadline
    if at.tzinfo is None:
        raise UsageError("the deadline has no time zone")
    made = Timestamp()
    made.FromDatetime(at)
    return made


@final
class TaskBlock:
    """`with` or `async with`: a task that starts and ends with the block.

    Args:
        tasks: Calls the server.
        start: Makes the flow that starts the task.
        timeout: Seconds for a call. Default: the client's.
        parent: Task that guarded functions still belong to. Empty: the task that starts.
    """

    def __init__(
        self,
        tasks: Tasks,
        start: Callable[[], Flow[tasks_pb2.Task]],
        timeout: float | None,
        *,
        parent: str = "",
    ) -> None:
        self._tasks = tasks
        self._start = start
        self._timeout = timeout
        self._parent = parent
        self._task: Task | None = None
        self._used = False
        self._before: Any = None

    def __enter__(self) -> Task:
        return self._entered(run(self._once(), self._tasks.session.transport))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        flow = self._left(kind)
        try:
            run(flow, self._tasks.session.transport)
        except Refused as refused:
            self._not_ended(refused, error)

    async def __aenter__(self) -> Task:
        starting = _kept(arun(self._once(), self._tasks.session.transport))
        try:
            return self._entered(await asyncio.shield(starting))
        except asyncio.CancelledError:
            # A task that starts while the block is cancelled would live on, unknown to anybody.
            await asyncio.wait({_kept(self._abandoned(starting))})
            raise

    async def _abandoned(self, starting: "asyncio.Task[tasks_pb2.Task]") -> None:
        with suppress(Refused):
            message = await starting
            attempts = self._tasks.session.attempts(self._timeout)
            flow = self._tasks.ending(message.id, Ending.ABORTED, attempts)
            await arun(flow, self._tasks.session.transport)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The end is told also where the block is cancelled, and takes no longer than its time.
        ending = _kept(arun(self._left(kind), self._tasks.session.transport))
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await asyncio.wait({ending})
            raise
        except Refused as refused:
            self._not_ended(refused, error)

    def _once(self) -> Flow[tasks_pb2.Task]:
        if self._used:
            raise UsageError("the block of a task is entered once; make another one")
        self._used = True
        return self._start()

    def _entered(self, message: tasks_pb2.Task) -> Task:
        self._task = Task(self._tasks, message, self._timeout)
        # A child is another agent's: what runs here still works on the parent.
        self._before = enter(self._parent or message.id, message.id)
        return self._task

    def _left(self, kind: type[BaseException] | None) -> Flow[int]:
        leave(self._before)
        if self._task is None:
            raise UsageError("the block of a task is left before it is entered")
        status = Ending.COMPLETED if kind is None else Ending.ABORTED
        return self._tasks.ending(
            self._task.id, status, self._tasks.session.attempts(self._timeout)
        )

    def _not_ended(self, refused: Refused, error: BaseException | None) -> None:
        """A task that could not be ended lives on until its deadline, which nobody may overlook."""
        if error is None:
            raise refused
        name = self._task.id if self._task is not None else ""
        error.add_note(f"authz: task {name} could not be ended: {refused.message or refused}")


_running: set[asyncio.Task[Any]] = set()


def _kept(work: Coroutine[Any, Any, Result]) -> "asyncio.Task[Result]":
    """Run work to its end, even if its caller stops waiting."""
    task = asyncio.ensure_future(work)

    def done(ended: asyncio.Task[Any]) -> None:
        _running.discard(ended)
        if not ended.cancelled():
            ended.exception()

    _running.add(task)
    task.add_done_callback(done)
    return task
