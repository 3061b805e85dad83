"""A task among its relatives, as a tree."""

from collections.abc import Iterator, Sequence
from typing import Final

from google.protobuf import json_format
from rich.text import Text
from rich.tree import Tree

from authz.cli.render.terminal import Terminal
from authz_client.v1 import tasks_pb2

__all__ = ["print_task_tree"]

_MOST_CHILDREN: Final = 100
_MOST_ENTRIES: Final = 40
_STYLES: Final = {"active": "green", "revoked": "red", "aborted": "red"}


def print_task_tree(
    terminal: Terminal, task: tasks_pb2.Task, relatives: Sequence[tasks_pb2.Task]
) -> None:
    """Print the tree that a task belongs to, with the facts of the task itself.

    Args:
        terminal: Where to print.
        task: The task.
        relatives: Tasks of its session that the caller may see, with or without the task.
    """
    known = {one.id: one for one in relatives} | {task.id: task}
    root = task
    # A parent that the caller may not see ends the way up.
    for _ in range(len(known)):
        if root.parent not in known:
            break
        root = known[root.parent]
    tree = Tree(_head(root, task), guide_style="dim")
    if root.parent:
        terminal.line(f"below {root.parent}")
    _grow(tree, root, task, known)
    terminal.out.print(tree)


def _grow(
    tree: Tree, at: tasks_pb2.Task, task: tasks_pb2.Task, left: dict[str, tasks_pb2.Task]
) -> None:
    """Add a task's facts and children. Each task is taken out of `left`, so that a circle ends."""
    left.pop(at.id, None)
    if at.id == task.id:
        for line in _facts(at):
            tree.add(Text(line))
    children = sorted(
        (one for one in left.values() if one.parent == at.id),
        key=lambda one: one.started_at.ToNanoseconds(),
    )
    for child in children[:_MOST_CHILDREN]:
        _grow(tree.add(_head(child, task)), child, task, left)
    if len(children) > _MOST_CHILDREN:
        tree.add(Text(f"and {len(children) - _MOST_CHILDREN} more tasks", style="dim"))


def _head(one: tasks_pb2.Task, task: tasks_pb2.Task) -> Text:
    status = tasks_pb2.TaskStatus.Name(one.status).removeprefix("TASK_STATUS_").lower()
    head = Text(one.id, style="bold" if one.id == task.id else "")
    head += Text(f"  {status}", style=_STYLES.get(status, "dim"))
    return head + Text(f"  {one.template}  {one.assignee}")


def _facts(task: tasks_pb2.Task) -> Iterator[str]:
    proof = tasks_pb2.SubjectProof.Name(task.subject_proof).removeprefix("SUBJECT_PROOF_").lower()
    yield f"on behalf of {task.subject} ({proof})" if task.subject else "for itself"
    started, until = task.started_at.ToJsonString(), task.deadline.ToJsonString()
    ended = f", ended {task.ended_at.ToJsonString()}" if task.HasField("ended_at") else ""
    yield f"from {started} until {until}{ended}"
    params = json_format.MessageToDict(task.params)
    if params:
        yield "params: " + ", ".join(f"{name}={value}" for name, value in sorted(params.items()))
    if task.named or task.claimed:
        yield f"destinations: {task.named} named by the user, {task.claimed} claimed by the agent"
    for entry in task.scope[:_MOST_ENTRIES]:
        yield "may call " + _entry(entry)
    if len(task.scope) > _MOST_ENTRIES:
        yield f"and {len(task.scope) - _MOST_ENTRIES} more operations; --format json tells all"


def _entry(entry: tasks_pb2.ScopeEntry) -> str:
    resources = entry.resources
    limits = []
    if resources.collections:
        limits.append("in " + ", ".join(resources.collections))
    if resources.ids:
        limits.append("ids " + ", ".join(resources.ids))
    if resources.path_prefix:
        limits.append(f"below {resources.path_prefix}")
    if resources.label_ceiling:
        limits.append("labels at most " + ", ".join(resources.label_ceiling))
    limits += [f"{pointer} {_limit(limit)}" for pointer, limit in sorted(entry.arguments.items())]
    if entry.uses:
        limits.append("once" if entry.uses == 1 else f"{entry.uses} times")
    return f"{entry.operation}: {'; '.join(limits)}" if limits else entry.operation


def _limit(limit: tasks_pb2.ArgumentLimit) -> str:
    match limit.WhichOneof("limit"):
        case "one_of":
            return "one of " + ", ".join(limit.one_of.values)
        case "range":
            return f"from {limit.range.minimum} to {limit.range.maximum}"
        case _:
            return f"begins with {limit.prefix}"
