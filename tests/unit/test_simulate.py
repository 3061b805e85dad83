"""`authz simulate`: a session step by step, with the labels that it carries, and the parts that were not understood."""

import hashlib
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from authz.bundle import read_folder
from authz.cli import main
from authz.engine import Plan
from authz.errors import BundleError, UsageError
from authz.tools.simulate import (
    Caller,
    SessionReading,
    read_call_lines,
    read_mcp_log,
    simulate,
)

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "examples" / "cookbook" / "customer-data-stays"
AGENT = "spiffe://corp.example/agents/support"
ALICE = {"issuer": "corp", "sub": "alice", "claims": {"groups": ["employees"]}}
#: The group as an audit log has it.
EMPLOYEES = f"sha256:{hashlib.sha256(b'employees').hexdigest()}"
AS = {"agent": AGENT, "subject": ALICE}


def stream(*lines: Any) -> BytesIO:
    """Return JSON lines; bytes stand as they are."""
    encoded = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    return BytesIO(b"".join(line + b"\n" for line in encoded))


def mail(to: str, **more: Any) -> dict[str, Any]:
    """Return a call that sends a mail."""
    return {"call": "mail.send", "input": {"to": [to], "text": "hi"}, "as": AS, **more}


READ = {"call": "crm.get", "input": {"id": "42"}, "as": AS}


def result(reading: SessionReading) -> dict[str, Any]:
    """Return the simulation as JSON."""
    return simulate(Plan.compile(read_folder(BUNDLE), {}), reading).document()


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str]:
    """Run the command; return its exit code and its output."""
    with pytest.raises(SystemExit) as ended:
        main(["simulate", str(BUNDLE), *(str(one) for one in arguments)])
    code = ended.value.code
    return code if isinstance(code, int) else 0, capsys.readouterr().out


def test_labels_are_carried_from_call_to_call() -> None:
    """Mail to a stranger is permitted until customer data was read."""
    done = result(
        read_call_lines(stream(mail("eve@evil.example"), READ, mail("eve@evil.example")), Caller())
    )
    first, read, last = done["steps"]
    assert [first["outcome"], read["outcome"], last["outcome"]] == ["PERMIT", "PERMIT", "DENY"]
    assert (read["labels_before"], read["labels_after"]) == ([], ["pii"])
    assert (last["labels_before"], last["labels_after"]) == (["pii"], ["pii"])
    assert [rule["name"] for rule in last["rules"]] == ["customer-data-stays"]
    assert last["rules"][0]["file"].endswith(".cedar")
    assert done["is_complete"]
    counts = done["counts"]
    assert (counts["calls"], counts["permitted"], counts["denied"]) == (3, 2, 1)


def test_a_caller_of_the_command_makes_calls_that_name_none() -> None:
    """Calls without `as` are those of `--agent` and `--subject`; without either they are not understood."""
    call = {"call": "crm.get", "input": {"id": "1"}}
    named = result(read_call_lines(stream(call), Caller(AGENT, "corp", "alice")))
    # Without claims the subject has no role.
    assert named["steps"][0]["reason_code"] == "CHAIN_NOT_PERMITTED"
    nobody = result(read_call_lines(stream(call), Caller()))
    assert nobody["steps"] == []
    assert nobody["not_understood"] == [
        {"line": 1, "what": "the call has no caller: give `as`, or --agent or --subject"}
    ]
    assert not nobody["is_complete"]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"{", "not a JSON object"),
        (b"[1]", "not a JSON object"),
        (b'{"call": "crm.get", "call": "mail.send"}', "not a JSON object"),
        (b"[" * 100_000, "not a JSON object"),
        ({**READ, "colour": "red"}, "unknown member 'colour'"),
        ({"call": 7}, "`call` is not an operation"),
        ({"input": {}}, "exactly one of call, start, delegate, report and end is needed"),
        ({**READ, "end": "task"}, "exactly one of call, start, delegate, report and end is needed"),
        ({**READ, "at": "yesterday"}, "`at` is not a time"),
        ({"report": "ok"}, "`report` is not an object"),
        (b'{"call": "' + b"x" * 1_100_000 + b'"}', "longer than 1 MiB"),
    ],
)
def test_lines_that_are_not_understood_are_listed(line: Any, what: str) -> None:
    """Each is listed with its number; the lines around it are simulated, and the session counts as incomplete."""
    done = result(read_call_lines(stream(READ, line, READ), Caller()))
    assert done["not_understood"] == [{"line": 2, "what": what}]
    assert [step["line"] for step in done["steps"]] == [1, 3]
    assert not done["is_complete"]
    assert done["counts"]["not_understood"] == 1


def test_an_operation_that_the_bundle_lacks_is_refused_as_by_a_node() -> None:
    """It is a step with the reason code of a node."""
    done = result(read_call_lines(stream({"call": "bank.pay", "as": AS}), Caller()))
    assert done["steps"][0]["reason_code"] == "UNKNOWN_OPERATION"


def test_a_malformed_step_ends_the_command() -> None:
    """A member of the wrong type is an error of the session, not a guess."""
    with pytest.raises(BundleError):
        result(read_call_lines(stream({**READ, "labels": "pii"}), Caller()))
    with pytest.raises(UsageError):
        read_call_lines(BytesIO((json.dumps(READ).encode() + b"\n") * 10_001), Caller())


def mcp(number: int, tool: str, arguments: Any) -> dict[str, Any]:
    """Return a tools/call."""
    params = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


def answered(number: int, **more: Any) -> dict[str, Any]:
    """Return the answer to a message."""
    return {"jsonrpc": "2.0", "id": number, "result": {"content": [], **more}}


def test_messages_of_mcp() -> None:
    """Calls of tools become calls, answers become reports, and other messages are counted."""
    caller = Caller(AGENT, "corp", "alice")
    lines = stream(
        {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {}},
        {
            "timestamp": "2026-11-30T10:00:00Z",
            "server": "crm-mcp",
            "message": mcp(1, "get", {"id": "42"}),
        },
        {"ts": 1_796_000_000, "server": "crm-mcp", "message": json.dumps(answered(1))},
        mcp(2, "send", {"to": ["eve@evil.example"], "text": "hi"}),
        answered(2, isError=True),
        answered(9),
        {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"arguments": []}},
        {"hello": "world"},
        {"server": "crm-mcp", "message": mcp(4, "get", {"id": "43"})},
    )
    reading = read_mcp_log(lines, caller, {"crm-mcp": "crm"}, "mail")
    assert [(step.kind, step.line) for step in reading.steps] == [
        ("call", 2),
        ("report", 3),
        ("call", 4),
        ("report", 5),
        ("call", 9),
    ]
    assert [step.request.get("operation") for step in reading.steps if step.kind == "call"] == [
        "crm.get",
        "mail.send",
        "crm.get",
    ]
    assert reading.steps[1].request == {"of": "line 2", "result": "ok"}
    assert reading.steps[3].request == {"of": "line 4", "result": "failed"}
    assert dict(reading.others) == {
        "initialize": 1,
        "answer to another request": 1,
        "call without an answer": 1,
    }
    assert [line for line, _ in reading.gaps] == [7, 8]
    assert result(reading)["counts"]["calls"] == 3


def test_a_message_without_a_server_needs_one() -> None:
    """Without --server, a call that names no server is not understood."""
    reading = read_mcp_log(stream(mcp(1, "get", {})), Caller(AGENT), {}, "")
    assert reading.gaps == [(1, "the message names no server: give --server SYSTEM")]


def test_the_output_is_the_same_for_the_same_session(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Byte by byte, for both formats."""
    file = tmp_path / "session.jsonl"
    timed = {**READ, "at": "2026-11-30T10:00:00Z"}
    file.write_bytes(stream(mail("eve@evil.example"), timed, mail("eve@evil.example")).getvalue())
    for form in ("text", "json"):
        outputs = {run(capsys, "--session", file, "--format", form) for _ in range(3)}
        assert len(outputs) == 1
        ((code, text),) = outputs
        assert code == 0
        assert "customer-data-stays" in text
    assert "labels: pii → pii" in run(capsys, "--session", file)[1]
    assert (
        "3 calls: 3 simulated, 2 permitted, 0 held, 1 denied" in run(capsys, "--session", file)[1]
    )


def test_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Options that contradict each other end the command with 1."""
    file = tmp_path / "session.jsonl"
    file.write_bytes(stream(READ).getvalue())
    for arguments in (
        ("--format", "yaml"),
        ("--source", "har"),
        ("--subject", "alice"),
        ("--template", "desk"),
        ("--server", "a", "--server", "b"),
    ):
        assert run(capsys, "--session", file, *arguments)[0] == 1
    assert run(capsys, "--session", tmp_path / "none.jsonl")[0] == 1


def test_text_of_a_session_cannot_steer_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Control characters of a file are not printed."""
    file = tmp_path / "session.jsonl"
    file.write_bytes(stream({"call": "crm.\x1b[2J", "as": AS}, {**READ, "\x1b[31m": 1}).getvalue())
    assert "\x1b[2J" not in run(capsys, "--session", file)[1]


def record(number: int, decision: dict[str, Any], **given: Any) -> bytes:
    """Return an audit record of a session."""
    fields = {
        "decision_id": f"d{number}",
        "timestamp": f"2026-11-30T10:00:0{number}.000Z",
        "labels": {"surface": given.pop("surface", "check")},
        "input": {
            "mode": "ENFORCE",
            "chain": [
                {"kind": "User", "id": "corp/alice", "claims": {"groups": [EMPLOYEES]}},
                {"kind": "Agent", "id": AGENT},
            ],
            "session": {"id": "s1"},
            **given,
        },
        "result": {"outcome": "PERMIT", "reason_code": "PERMITTED", "enforced": True, **decision},
        "masked": given.get("masked", []),
    }
    return json.dumps(fields).encode() + b"\n"


def test_a_session_of_an_audit_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its calls are made again; other sessions are left out, and calls without their arguments are listed."""
    to = {"to": ["eve@evil.example"], "text": "hi"}
    lines = [
        record(1, {}, operation="mail.send", arguments=to),
        record(2, {}, operation="crm.get", arguments={"id": "42"}),
        record(3, {}, operation="crm.get", arguments={"id": "7"}, session={"id": "other"}),
        record(4, {}, operation="mail.send", arguments=to),
        record(
            5, {}, operation="crm.get", arguments={"id": "sha256:0"}, masked=["/input/arguments/id"]
        ),
        record(6, {}, operation="crm.get", arguments={"id": f"salted:{'0' * 64}"}),
        record(7, {}, operation="task.end", arguments={}, surface="task_end"),
        b"{ damaged\n",
    ]
    log = tmp_path / "audit.jsonl"
    log.write_bytes(b"".join(lines))
    code, out = run(capsys, "--log", log, "--session", "s1", "--format", "json")
    assert code == 0
    done = json.loads(out)
    assert [step["outcome"] for step in done["steps"]] == ["PERMIT", "PERMIT", "DENY"]
    assert [step["is_changed"] for step in done["steps"]] == [False, False, True]
    assert done["counts"]["changed"] == 1
    assert [gap["line"] for gap in done["not_understood"]] == [5, 6, 0]
    assert done["other_lines"] == {"task_end": 1}
    assert not done["is_complete"]
    assert "in the log: PERMIT PERMITTED" in run(capsys, "--log", log, "--session", "s1")[1]
    assert run(capsys, "--log", log, "--session", "s2")[0] == 1
