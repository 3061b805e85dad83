"""With `mode: observe` every case of the case files is judged as before, and let through unless it must not be."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from authz.thirdparty.envoy.service.auth.v3 import external_auth_pb2
from authz_client.v1 import admin_pb2, decision_pb2, options_pb2, reason_pb2
from tests.support import cases
from tests.support.cases import Flat
from tests.support.minting import Authority
from tests.support.server import Server, layout
from tests.support.surfaces import (
    ENCODINGS,
    check_request,
    decision_of,
    envoy_request,
    lanes,
    mint,
    normal_check,
    normal_envoy,
    outcome,
    reason_name,
)

BUNDLE = "desk"
CASES = [case for case in cases.load() if case.bundle == BUNDLE]
ASKED = [case for case in CASES if case.step.http is None]
OVER_HTTP = [case for case in CASES if case.step.http is not None]

NEVER = {
    "AMBIGUOUS_REQUEST",
    "BAD_CREDENTIAL",
    "BAD_PROOF",
    "DEADLINE",
    "EXPIRED_CREDENTIAL",
    "HEADER_MISMATCH",
    "TASK_CONFLICT",
    "UNAVAILABLE",
    "UNBOUND_CREDENTIAL",
    "UNKNOWN_TASK",
    "UNTRUSTED_ISSUER",
    "WRONG_AUDIENCE",
    "APPROVAL_MISMATCH",
}
BY_FORM = {"BAD_INPUT", "ENFORCER_REFUSED"}
"""Let through where the request was understood."""


@pytest.fixture(scope="module")
def observing(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Server]:
    """A server of the bundle that observes everything for 30 days."""
    folder = tmp_path_factory.mktemp("observe")
    place = layout(folder, authority, BUNDLE)
    until = (datetime.now(UTC) + timedelta(days=30)).date()
    (folder / "bundle" / "mode.yaml").write_text(
        f"mode: {{default: observe, owner: sec@corp.example, until: {until}}}\n"
    )
    with Server(place) as server:
        yield server


def may_pass(code: str, *, passed: bool) -> bool:
    """Whether a code may come with that."""
    return code in BY_FORM or passed == (code not in NEVER)


@pytest.mark.parametrize("case", ASKED, ids=lambda case: case.id)
def test_check(case: Flat, authority: Authority, observing: Server) -> None:
    """The judged outcome is the case's, on both lanes, whatever was answered."""
    request = check_request(case, mint(authority, case))
    answers = [
        surface.ask(case.step.listener, request)
        for surface in lanes(observing)
        if surface.kind == "check"
    ]
    assert len({normal_check(answer) for answer in answers}) == 1
    decision = decision_of(answers[0])
    wanted = case.step.wanted
    judged = decision.observed if decision.HasField("observed") else decision
    assert decision_pb2.Outcome.Name(judged.outcome).removeprefix("OUTCOME_") == wanted.outcome
    code = reason_pb2.ReasonCode.Name(judged.reason_code).removeprefix("REASON_CODE_")
    assert wanted.code in {None, code}
    assert wanted.kinds in (None, list(judged.step_up_kinds))
    assert wanted.policies in (None, list(decision.policy_ids))
    softened = not decision.enforced
    assert softened == decision.HasField("observed")
    if softened:
        assert (outcome(decision), list(decision.obligations)) == ("PERMIT", [])
        assert decision.public_code == options_pb2.PUBLIC_CODE_PERMIT
    own = (case.step.call or "").startswith("authz.") or case.step.request.mode == "PROBE"
    if not own and code not in {"PERMITTED", "UNSPECIFIED"}:
        assert may_pass(code, passed=softened), code


@pytest.mark.parametrize("case", OVER_HTTP, ids=lambda case: case.id)
def test_envoy_check(case: Flat, authority: Authority, observing: Server) -> None:
    """Envoy forwards what is only observed, and its metadata says what the case says."""
    tokens = mint(authority, case)
    requests = [envoy_request(case, tokens, encoding) for encoding in ENCODINGS]
    answers = [
        surface.ask(case.step.listener, request)
        for surface in lanes(observing)
        for request in requests
        if surface.kind == "envoy" and request is not None
    ]
    assert len({normal_envoy(answer) for answer in answers}) == 1
    response = external_auth_pb2.CheckResponse.FromString(answers[0])
    said: dict[str, Any] = dict(response.dynamic_metadata.items())
    softened = said["enforced"] == "false"
    decision = said["observed_decision"] if softened else said["decision"]
    code = said["observed_reason_code"] if softened else said["reason_code"]
    wanted = case.step.wanted
    assert decision == wanted.outcome
    assert wanted.code in {None, code}
    passed = softened or decision == "PERMIT"
    assert passed == (response.status.code == 0 and response.HasField("ok_response"))
    if code != "PERMITTED":
        assert may_pass(code, passed=softened), code


def test_an_ended_mode_enforces(tmp_path: Path, authority: Authority) -> None:
    """The entry of a running server ends without a reload."""
    place = layout(tmp_path, authority, BUNDLE)
    case = next(
        case
        for case in ASKED
        if case.step.wanted.code == "FORBIDDEN" and not case.step.request.mode
    )
    request = check_request(case, mint(authority, case))
    with Server(place) as server:
        ask = lanes(server)[0].ask
        # Not before it serves: how long that takes is the machine's affair.
        until = datetime.now(UTC) + timedelta(seconds=8)
        (tmp_path / "bundle" / "mode.yaml").write_text(
            f"mode: {{default: observe, owner: sec, until: {until:%Y-%m-%dT%H:%M:%SZ}}}\n"
        )
        answer = server.call("admin", "authz.v1.Admin/Reload", b"")
        assert admin_pb2.ReloadResponse.FromString(answer).reloaded
        assert outcome(decision_of(ask("main", request))) == "PERMIT"
        time.sleep(max(0.0, (until - datetime.now(UTC)).total_seconds()) + 0.1)
        decision = decision_of(ask("main", request))
        assert (outcome(decision), reason_name(decision)) == ("DENY", "FORBIDDEN")
