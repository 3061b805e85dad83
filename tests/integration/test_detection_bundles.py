"""A running server decides about the corpus as its judge does: both lanes, with real credentials and tasks."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest
import yaml
from google.protobuf.struct_pb2 import Struct

from authz.bundle import compile_bundle, read_folder
from authz.model import BundleFiles
from authz_client import ProofKey
from authz_client.result_values import ResultValues
from authz_client.v1 import authorizer_pb2, decision_pb2, tasks_pb2
from bench.detection import measure
from bench.detection.judge import ISSUER, NOW_MS, agent
from bench.detection.memory import with_isolation
from bench.detection.reports import Reports
from bench.detection.scenario import DOMAINS, FOLDER, KINDS, Domain, Scenario, domain, scenarios
from bench.detection.simulate import Asked
from bench.detection.world import Result
from tests.support.detecting import NO_DATA_OUT, PERMITS, bundle, knowing_events, scenario
from tests.support.minting import Authority, Key
from tests.support.server import Server, layout
from tests.support.surfaces import CHECK, LANES, decision_of, outcome, reason_name

REPORT = "authz.v1.Authorizer/Report"
# A server's clock cannot be moved: what comes later than this is not asked.
_PAUSE = 60


@dataclass
class Desk:
    """The server of a domain, and the credentials of those who call it."""

    server: Server
    authority: Authority
    domain: Domain
    key: ProofKey

    def start(self, scenario: Scenario, number: int, who: str) -> str:
        """Starts a task of a scenario for the agent; returns its id."""
        of = scenario if number == 0 else scenario.later[number - 1]
        user = self.domain.users[scenario.user]
        token = self.authority.alone(who, ISSUER, **user.claims, email=user.address)
        params = Struct()
        params.update(of.params)
        request = tasks_pb2.StartRequest(
            evidence=[
                decision_pb2.Evidence(
                    role=decision_pb2.EVIDENCE_ROLE_SUBJECT,
                    scheme=decision_pb2.EVIDENCE_SCHEME_BEARER,
                    token=token,
                )
            ],
            template=scenario.template_of(number),
            params=params,
            prompt=of.prompt,
            assignee=agent(self.domain),
        )
        data = self.server.call("main", "authz.v1.Tasks/Start", request.SerializeToString())
        return tasks_pb2.StartResponse.FromString(data).task.id

    def end(self, task: str) -> None:
        """Ends a task as done, as the agent that has it, unless what it was denied has ended it."""
        bearer = decision_pb2.Evidence(
            role=decision_pb2.EVIDENCE_ROLE_AGENT,
            scheme=decision_pb2.EVIDENCE_SCHEME_BEARER,
            token=self.authority.agent(agent(self.domain)),
        )
        request = tasks_pb2.EndRequest(
            evidence=[bearer],
            task=task,
            status=tasks_pb2.TASK_STATUS_COMPLETED,
        )
        with suppress(grpc.RpcError):
            self.server.call("main", "authz.v1.Tasks/End", request.SerializeToString())

    def evidence(self, uri: str) -> decision_pb2.Evidence:
        """The agent's credential, bound to its key, with a proof."""
        name = agent(self.domain)
        token = self.authority.agent(name, cnf={"jkt": self.key.thumbprint})
        return decision_pb2.Evidence(
            role=decision_pb2.EVIDENCE_ROLE_AGENT,
            scheme=decision_pb2.EVIDENCE_SCHEME_DPOP,
            token=token,
            proof=self.key.proof("POST", uri, token=token),
        )

    def ask(self, lane: str, task: str, asked: Asked) -> decision_pb2.Decision:
        """Asks about a step, as the enforcer of the lane."""
        uri = f"https://tools.example/{asked.operation}"
        request = decision_pb2.CheckRequest(
            evidence=[self.evidence(uri)],
            task=task,
            operation=asked.operation,
            arguments_json=json.dumps(asked.arguments).encode(),
            http_method="POST",
            http_uri=uri,
        )
        return decision_of(self.server.call("tools" + lane, CHECK, request.SerializeToString()))

    def report(self, lane: str, decision: decision_pb2.Decision, result: Result) -> None:
        """Reports what came of a permitted call, as a guard of the SDK does that cannot tell labels apart."""
        request = authorizer_pb2.ReportRequest(
            decision_id=decision.reservation_id,
            result=authorizer_pb2.REPORT_RESULT_OK,
            labels=decision.yields,
            values=ResultValues.read(result, list(decision.report_values)).values,
        )
        self.server.call("tools" + lane, REPORT, request.SerializeToString())

    def differ(self, run: measure.Run, lane: str) -> tuple[int, list[str]]:
        """Asks about all steps that come without a pause; returns how many, and where the answer is another."""
        found: list[str] = []
        task, number, at = "", -1, 0
        for count, answer in enumerate(run.answers):
            asked = answer.asked
            if asked.at - at >= _PAUSE:
                self.end(task)
                return count, found
            at = asked.at
            if asked.task != number:
                if task:
                    self.end(task)
                number = asked.task
                # Nobody whom the server remembers from another scenario.
                who = f"{run.scenario.user}{lane}-of-{run.scenario.id}"
                task = self.start(run.scenario, number, who)
            wanted = (answer.outcome, answer.code, answer.policies)
            decision = self.ask(lane, task, asked)
            result = run.played.results.get(asked.number)
            if decision.reservation_id and result is not None:
                self.report(lane, decision, result)
            policies = tuple(sorted(decision.policy_ids))
            said = (outcome(decision), reason_name(decision), policies)
            if said != wanted:
                found.append(f"{run.scenario.id}, step {asked.number}: {wanted}, the server {said}")
        # What an agent knows from a task that lives counts in its next.
        self.end(task)
        return len(run.answers), found


@contextmanager
def serving(files: BundleFiles, name: str, folder: Path) -> Iterator[Desk]:
    """Runs a server on a bundle that trusts the agents of a domain."""
    of = domain(name)
    authority = Authority(svid={**Authority().svid, of.own: Key.make("own")})
    for path, content in files.files.items():
        target = folder / "given" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    keys = folder / "own.json"
    keys.write_text(authority.bundle(of.own))
    trust = {
        "domains": {of.own: {"bundle": {"file": str(keys)}}},
        "issuers": {ISSUER: {"claims": ["groups", "email"]}},
    }
    # One enforcer a lane, each on a socket of its own.
    sockets = tempfile.mkdtemp(prefix="authz-")
    listeners = {f"tools{lane}": f"unix://{sockets}/tools{lane}.sock" for lane in LANES}
    changes = {
        "trust": trust,
        "listeners": {
            name: {"address": address, **({"lane": "fast"} if name.endswith("-fast") else {})}
            for name, address in listeners.items()
        },
        "enforcers": [
            {"name": name, "listener": name, "asks": ["system:*"], "reports": "sdk"}
            for name in listeners
        ],
    }
    try:
        with Server(layout(folder / "node", authority, folder / "given", changes)) as server:
            yield Desk(server, authority, of, ProofKey())
    finally:
        shutil.rmtree(sockets, ignore_errors=True)


def _keeping_nothing(files: BundleFiles) -> BundleFiles:
    """The bundle, in which nothing that is written keeps labels: what one scenario wrote, the next would read."""
    changed = dict(files.files)
    for path, content in files.files.items():
        if path.endswith(".yaml") and b"\nresources:" in content:
            facts = yaml.safe_load(content)
            for collection in facts["resources"].values():
                collection["keeps_written"] = "none"
            changed[path] = yaml.safe_dump(facts, sort_keys=False).encode()
    return replace(files, files=changed)


def _agrees(files: BundleFiles, name: str, folder: Path) -> None:
    # All scenarios are of one agent. What it remembers of one user must not count in the scenario of another.
    files = with_isolation(_keeping_nothing(files), "per_subject")
    plan = compile_bundle(files, {}, NOW_MS).plan
    reports = Reports.of(files) or None
    runs = [
        measure.run(plan, one, reports=reports) for kind in KINDS for one in scenarios(name, kind)
    ]
    asked, found = 0, []
    with serving(files, name, folder) as desk:
        for lane in LANES:
            for run in runs:
                count, differ = desk.differ(run, lane)
                asked += count
                found += differ
    assert found == []
    assert asked > len(LANES) * sum(len(run.answers) for run in runs) / 2
    assert any(answer.outcome != "PERMIT" for run in runs for answer in run.answers)


def test_servers_decide_as_the_judge_does(tmp_path: Path) -> None:
    """Also what depends on what was read before, and on what the prompt names."""
    named = """@id("named") forbid(principal, action == Action::"mail.send_email", resource)
    when { context.session.labels.contains(Label::"stranger") } unless { context.destination.trusted };"""
    sequences = {"read-then-delete": {"switch": {"effect": ["read", "write"]}}}
    budgets = {"mails": {"count": "mail.send_email", "most": 1, "scope": "task"}}
    policies = """@id("order") forbid(principal, action == Action::"files.delete_file", resource)
    when { context.sequences.contains(Sequence::"read-then-delete") };"""
    facts = {"sequences": sequences, "budgets": budgets}
    files = bundle(PERMITS + NO_DATA_OUT + named + policies, **facts)
    _agrees(files, "mail", tmp_path)


def test_so_they_do_where_results_are_reported(tmp_path: Path) -> None:
    """What waits for a report of the enforcer sees it on a server as in a trace."""
    catalog = {name: {"kind": "mcp", "reports": "sdk"} for name in ("calendar", "files", "mail")}
    rule = {"require": "files.read_file", "before": "mail.send_email"}
    policy = """@id("order") forbid(principal, action == Action::"mail.send_email", resource)
    when { context.sequences.contains(Sequence::"first-read") };"""
    facts = {"sequences": {"first-read": rule}, "catalog": catalog}
    _agrees(bundle(PERMITS + NO_DATA_OUT + policy, **facts), "mail", tmp_path)


def test_so_they_do_where_values_are_reported(tmp_path: Path) -> None:
    """A server knows from the enforcer's report what a task made, as the judge does from the trace's."""
    files = knowing_events()
    create = {
        "call": "calendar.create_event",
        "with": {"title": "Call", "start": "2026-12-01 10:00"},
    }
    made, other = (
        {"call": "calendar.cancel_event", "with": {"id": one}} for one in ("${1.id}", "e-team")
    )
    plan = compile_bundle(files, {}, NOW_MS).plan
    run = measure.run(plan, scenario(create, made, other), reports=Reports.of(files))
    assert [answer.outcome for answer in run.answers] == ["PERMIT", "PERMIT", "STEP_UP"]
    with serving(files, "mail", tmp_path) as desk:
        for lane in LANES:
            assert desk.differ(run, lane) == (3, [])


@pytest.mark.parametrize("name", DOMAINS)
def test_so_they_do_on_the_bundle_of_a_domain(name: str, tmp_path: Path) -> None:
    """What was measured is what a server would have said."""
    folder = FOLDER / name / "bundle"
    if not folder.is_dir():
        pytest.skip(f"{name} has no bundle yet")
    _agrees(read_folder(folder), name, tmp_path)
