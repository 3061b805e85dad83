"""`authz task get`: a task among its relatives, as a tree."""

import io
from typing import Final

from google.protobuf import json_format
from rich.console import Console

from authz.cli.render import Terminal
from authz.cli.render.task import print_task_tree
from authz_client.v1 import tasks_pb2

AGENT: Final = "spiffe://a.example/ns/support/sa/"


def task(id_: str, parent: str = "", **more: object) -> tasks_pb2.Task:
    """Make a task."""
    made = tasks_pb2.Task()
    fields = {
        "id": id_,
        "parent": parent,
        "template": "answer",
        "assignee": AGENT + id_,
        "status": "TASK_STATUS_ACTIVE",
        "started_at": "2026-11-30T10:00:00Z",
        "deadline": "2026-11-30T18:00:00Z",
        **more,
    }
    json_format.ParseDict(fields, made)
    return made


def printed(one: tasks_pb2.Task, *relatives: tasks_pb2.Task) -> list[str]:
    """Return the printed lines."""
    terminal = Terminal()
    terminal.out = Console(width=100, file=io.StringIO(), record=True)
    print_task_tree(terminal, one, relatives)
    return [line.rstrip() for line in terminal.out.export_text().splitlines()]


def test_a_task_stands_between_its_parent_and_its_children() -> None:
    """The tree begins at the root; the facts are those of the task that was asked for."""
    root = task("orch", started_at="2026-11-30T09:00:00Z")
    one = task(
        "reader",
        "orch",
        subject="corp/alice",
        subject_proof="SUBJECT_PROOF_VERIFIED",
        params={"customer": "acme"},
        scope=[
            {
                "operation": "crm.read",
                "resources": {"path_prefix": "acme/orders"},
                "arguments": {"/limit": {"range": {"minimum": 1, "maximum": 5}}},
                "uses": 3,
            },
            {"operation": "mail.send"},
        ],
    )
    late = task("late", "reader", started_at="2026-11-30T12:00:00Z", status="TASK_STATUS_REVOKED")
    early = task("early", "reader", started_at="2026-11-30T11:00:00Z")
    other = task("other", "orch", started_at="2026-11-30T11:00:00Z")
    assert printed(one, late, other, root, early) == [
        f"orch  active  answer  {AGENT}orch",
        f"├── reader  active  answer  {AGENT}reader",
        "│   ├── on behalf of corp/alice (verified)",
        "│   ├── from 2026-11-30T10:00:00Z until 2026-11-30T18:00:00Z",
        "│   ├── params: customer=acme",
        "│   ├── may call crm.read: below acme/orders; /limit from 1 to 5; 3 times",
        "│   ├── may call mail.send",
        f"│   ├── early  active  answer  {AGENT}early",
        f"│   └── late  revoked  answer  {AGENT}late",
        f"└── other  active  answer  {AGENT}other",
    ]


def test_a_parent_that_the_caller_may_not_see_is_named() -> None:
    """Without its parent, the tree begins at the task."""
    lines = printed(task("reader", "orch"))
    assert lines[0] == "below orch"
    assert lines[1].startswith("reader  active")


def test_a_circle_ends() -> None:
    """A server that answers nonsense does not hang the command."""
    assert printed(task("a", "b"), task("b", "a"))
