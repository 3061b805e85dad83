"""Every case file on every surface: kernel, engine, both lanes, Envoy's Check on both."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from authz import _native
from authz.engine import EnforcerRules, ListenerRules, default_settings
from authz.model import CallFacts
from authz.thirdparty.envoy.service.auth.v3 import external_auth_pb2
from authz_client.v1 import decision_pb2, options_pb2
from tests.support import cases
from tests.support.cases import BUNDLES, VARIABLES, Expect, Flat, Step, Upstream
from tests.support.fixtures import Servers
from tests.support.minting import Authority
from tests.support.server import bundle_files, trust_spec
from tests.support.surfaces import (
    ENCODINGS,
    MCP_ERRORS,
    Row,
    Surface,
    body_of,
    check_request,
    decision_of,
    envoy_request,
    lanes,
    mint,
    normal_check,
    normal_envoy,
    outcome,
    reason_name,
    reason_rows,
)

CASES = cases.load()
CHECKED = [case for case in CASES if case.step.call is not None]
OVER_HTTP = [case for case in CASES if case.step.http is not None]
#: Reasons that stand in headers which only a server reads.
OUTSIDE_KERNEL = re.compile("NO_CREDENTIAL|UNKNOWN_TASK|TASK_CONFLICT|UNBOUND_CREDENTIAL")
ROWS = reason_rows()
IDENTITY = ("x-authz-agent", "x-authz-subject", "x-authz-decision-id")
OURS_INBOUND = ("authz-credential", "authz-subject", "authz-task")


@pytest.fixture(scope="session")
def engines(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, _native.Engine]]:
    """An engine in this process for each bundle, with the listeners that the servers have."""
    folder = tmp_path_factory.mktemp("engines")
    listeners = [
        ListenerRules("main", insecure_dev=True, surfaces=None),
        ListenerRules(
            "crm-only",
            enforcer=EnforcerRules("crm-server", asks=("system:crm",)),
            surfaces=None,
        ),
        ListenerRules("none", surfaces=None),
    ]
    rules = json.dumps([asdict(listener) for listener in listeners]).encode()
    made = {}
    for bundle in sorted({case.bundle for case in CASES}):
        engine = _native.Engine(
            json.dumps(default_settings(str(folder / f"{bundle}.jsonl"))).encode()
        )
        trust = _native.Trust.compile(trust_spec(authority))
        engine.load(plan(bundle), trust, rules, b"[]")
        made[bundle] = engine
    yield made
    for engine in made.values():
        engine.close()


@cache
def plan(bundle: str) -> _native.Plan:
    """Compiles a bundle of the case files."""
    now = int(time.time() * 1000)
    return _native.Plan.compile(bundle_files(BUNDLES / bundle), VARIABLES, now)


def in_process(engine: _native.Engine) -> list[Surface]:
    """Returns the engine's own surfaces."""
    return [
        Surface(
            "engine, check", "check", lambda listener, data: engine.check(data, CallFacts(listener))
        ),
        Surface(
            "engine, envoy",
            "envoy",
            lambda listener, data: engine.envoy_check(data, CallFacts(listener)),
        ),
    ]


def compare(decision: decision_pb2.Decision, wanted: Expect) -> dict[str, tuple[Any, Any]]:
    """Returns what differs, as wanted and found."""
    found: dict[str, Any] = {
        "outcome": outcome(decision),
        "code": reason_name(decision),
        "kinds": list(decision.step_up_kinds),
        "policies": list(decision.policy_ids),
        "controls": list(decision.controls),
        "obligations": list(decision.obligations),
        "public_code": options_pb2.PublicCode.Name(decision.public_code)[len("PUBLIC_CODE_") :],
        "next_action": options_pb2.NextAction.Name(decision.next_action)[len("NEXT_ACTION_") :],
        "tier": decision_pb2.Tier.Name(decision.tier),
        "resource": decision.resource,
        "shown_reason": decision.shown_reason,
        "observed": {
            policy.policy_id: decision_pb2.Outcome.Name(policy.outcome).removeprefix("OUTCOME_")
            for policy in decision.observed_policies
        },
    }
    differ = {
        name: (want, found[name])
        for name in found
        if (want := getattr(wanted, name)) is not None and want != found[name]
    }
    if wanted.policy is not None and wanted.policy not in decision.policy_ids:
        differ["policy"] = (wanted.policy, list(decision.policy_ids))
    row = ROWS[found["code"]]
    if (row.public_code, row.next_action) != (found["public_code"], found["next_action"]):
        differ["row"] = (row, found)
    return differ


def compare_envoy(
    response: external_auth_pb2.CheckResponse, step: Step
) -> dict[str, tuple[Any, Any]]:
    """Returns what differs, as wanted and found."""
    wanted = step.wanted
    code = str(response.dynamic_metadata["reason_code"])
    row = ROWS[code]
    differ: dict[str, tuple[Any, Any]] = {}
    if wanted.code not in {None, code}:
        differ["code"] = (wanted.code, code)
    if wanted.observed is not None:
        described = dict(response.dynamic_metadata).get("observed_policies", "")
        found = dict(item.split("=") for item in str(described).split())
        if found != wanted.observed:
            differ["observed"] = (wanted.observed, found)
    if response.dynamic_metadata["decision"] != wanted.outcome:
        differ["outcome"] = (wanted.outcome, response.dynamic_metadata["decision"])
    if wanted.outcome == "PERMIT":
        if response.status.code != 0 or not response.HasField("ok_response"):
            differ["status"] = (0, response)
            return differ
        return differ | compare_upstream(response.ok_response, wanted)
    if response.status.code != row.grpc_code or row.grpc_code == 0:
        differ["status"] = (row.grpc_code, response.status.code)
    if not response.HasField("denied_response"):
        differ["response"] = ("denied_response", response)
    compare = compare_http if wanted.answer == "http" else compare_mcp
    return differ | compare(response, step, row)


def compare_http(
    response: external_auth_pb2.CheckResponse, _: Step, row: Row
) -> dict[str, tuple[Any, Any]]:
    """Returns what differs in the answer to an HTTP client."""
    differ: dict[str, tuple[Any, Any]] = {}
    if response.denied_response.status.code != row.http_status:
        differ["http"] = (row.http_status, response.denied_response.status.code)
    body = body_of(response)
    shown = (body["public_code"], body["next_action"], body["retry"])
    if shown != (row.public_code, row.next_action, row.retry):
        differ["body"] = (row, body)
    names = [option.header.key for option in response.denied_response.headers]
    if (row.http_status == 401) != ("www-authenticate" in names):
        differ["www-authenticate"] = (row.http_status == 401, names)
    return differ


def compare_mcp(
    response: external_auth_pb2.CheckResponse, step: Step, row: Row
) -> dict[str, tuple[Any, Any]]:
    """Returns what differs in the answer to an MCP client."""
    status, body = response.denied_response.status.code, body_of(response)
    found: dict[str, Any] = {"status": status, "members": set(body), "id": body["id"]}
    wanted: dict[str, Any] = {"status": 200, "members": {"jsonrpc", "id", step.wanted.answer}}
    assert step.http is not None
    if step.wanted.answer == "result":
        (text, *_), public = body["result"]["content"], body["result"]["_meta"]
        found["result"] = (body["result"]["isError"], text["type"])
        wanted["result"] = (True, "text")
    else:
        public = body["error"]["data"]
        wanted["status"] = MCP_ERRORS[body["error"]["code"]]
    # What was read as no message has no id that could be its own.
    unread = (status, body.get("error", {}).get("code")) == (400, -32600)
    wanted["id"] = None if unread else json.loads(step.http.body or "{}").get("id")
    public = public["dev.authz/decision"]
    found["public"] = (public["public_code"], public["next_action"], public["retry"])
    wanted["public"] = (row.public_code, row.next_action, row.retry)
    return {name: (wanted[name], found[name]) for name in wanted if wanted[name] != found[name]}


def compare_upstream(
    ok: external_auth_pb2.OkHttpResponse, wanted: Expect
) -> dict[str, tuple[Any, Any]]:
    """Returns what differs in the headers of a permit."""
    overwrite = (True, False, 2)
    flags = {
        option.header.key: (option.HasField("append"), option.append.value, option.append_action)
        for option in ok.headers
    }
    differ: dict[str, tuple[Any, Any]] = {
        f"overwrite {name}": (overwrite, found)
        for name, found in flags.items()
        if found != overwrite
    }
    put = {option.header.key: option.header.value for option in ok.headers}
    gone = set(ok.headers_to_remove)
    if put.keys() & gone:
        differ["both set and removed"] = (set(), put.keys() & gone)
    # On every permit each identity header is set or removed, and what came in for us is removed.
    if missing := {*IDENTITY} - put.keys() - gone:
        differ["identity"] = (IDENTITY, missing)
    if kept := {*OURS_INBOUND} - gone:
        differ["ours"] = (OURS_INBOUND, kept)
    upstream = wanted.upstream or Upstream()
    if not upstream.set.items() <= put.items():
        differ["set"] = (upstream.set, put)
    if not set(upstream.removed) <= gone:
        differ["removed"] = (upstream.removed, gone)
    return differ


@pytest.mark.parametrize("case", CHECKED, ids=lambda case: case.id)
def test_check(
    case: Flat, authority: Authority, servers: Servers, engines: dict[str, _native.Engine]
) -> None:
    """Engine and both lanes decide as the case says, with the same bytes but for id and time."""
    request = check_request(case, mint(authority, case))
    surfaces = [*in_process(engines[case.bundle]), *lanes(servers.of(case.bundle))]
    answers = {
        surface.name: surface.ask(case.step.listener, request)
        for surface in surfaces
        if surface.kind == "check"
    }
    assert {name: {} for name in answers} == {
        name: compare(decision_of(answer), case.step.wanted) for name, answer in answers.items()
    }
    assert len({normal_check(answer) for answer in answers.values()}) == 1


@pytest.mark.parametrize("case", OVER_HTTP, ids=lambda case: case.id)
def test_envoy_check(
    case: Flat, authority: Authority, servers: Servers, engines: dict[str, _native.Engine]
) -> None:
    """So do they for the same request as Envoy sends it, in both encodings of headers."""
    tokens = mint(authority, case)
    requests = {encoding: envoy_request(case, tokens, encoding) for encoding in ENCODINGS}
    surfaces = [*in_process(engines[case.bundle]), *lanes(servers.of(case.bundle))]
    answers = {
        f"{surface.name}, {encoding}": surface.ask(case.step.listener, request)
        for surface in surfaces
        for encoding, request in requests.items()
        if surface.kind == "envoy" and request is not None
    }
    assert answers, "a case with `http` that HTTP cannot say"
    read = external_auth_pb2.CheckResponse.FromString
    assert {name: {} for name in answers} == {
        name: compare_envoy(read(answer), case.step) for name, answer in answers.items()
    }
    assert len({normal_envoy(answer) for answer in answers.values()}) == 1


@pytest.mark.parametrize("path", cases.files(), ids=lambda path: path.stem)
def test_kernel(path: Path) -> None:
    """The kernel alone decides as the file says, where no credential or wire is in play."""
    file = cases.read(path)
    now = int(time.time() * 1000)
    report = json.loads(plan(file.bundle).test({path.name: path.read_bytes()}, now))
    failed = [row for row in report["failed"] if not OUTSIDE_KERNEL.search(row["expected"])]
    assert failed == []
    steps = sum(len(case.steps or [case]) for case in file.tests)
    assert report["passed"] + report["skipped"] + len(report["failed"]) == steps


def test_schema_of_case_files() -> None:
    """The committed schema is the one that the files are read with."""
    assert cases.SCHEMA.read_text() == cases.schema()


def test_names_of_cases() -> None:
    """No two requests have one name."""
    names = [case.id for case in CASES]
    assert sorted(set(names)) == sorted(names)
