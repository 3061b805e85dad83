"""Tasks through a real Envoy: named by header or baggage, and never told to the upstream."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from authz_client.v1 import decision_pb2, tasks_pb2
from tests.support.cases import BUNDLES
from tests.support.envoy import Envoy
from tests.support.minting import Authority
from tests.support.people import BOT, People
from tests.support.server import Server, layout
from tests.support.upstream import Upstream

pytestmark = pytest.mark.envoy

TEMPLATES = """\
templates:
  search: {purpose: look a customer up, deadline: 5m, scope: [{operation: crm.search}]}
"""
POLICY = """\
@id("staff-starts") permit(principal in Role::"staff", action == Action::"task:search", resource);
@id("staff-gives") permit(principal in Role::"staff", action == Action::"give:search", resource);
"""


@pytest.fixture(scope="module")
def people(authority: Authority) -> People:
    """Good credentials."""
    return People.of(authority)


@pytest.fixture(scope="module")
def server(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the bundle `desk` that needs tasks."""
    folder = tmp_path_factory.mktemp("tasks")
    bundle = folder / "source"
    shutil.copytree(BUNDLES / "desk", bundle)
    said = bundle / "bundle.yaml"
    said.write_text(said.read_text().replace("tasks: optional", "tasks: required"))
    (bundle / "templates.yaml").write_text(TEMPLATES)
    (bundle / "policies" / "tasks.cedar").write_text(POLICY)
    with Server(layout(folder / "node", authority, bundle)) as running:
        yield running


@pytest.fixture(params=["main", "main-fast"])
def envoy(
    request: pytest.FixtureRequest, server: Server, upstream: Upstream, tmp_path: Path
) -> Iterator[Envoy]:
    """An Envoy before each lane."""
    with ExitStack() as stack:
        yield stack.enter_context(Envoy(tmp_path, server.port(request.param), upstream.port))


def start(server: Server, people: People) -> str:
    """Starts Alice's task of the bot."""
    evidence = decision_pb2.Evidence(
        role=decision_pb2.EVIDENCE_ROLE_SUBJECT,
        scheme=decision_pb2.EVIDENCE_SCHEME_BEARER,
        token=people.alice_herself,
    )
    request = tasks_pb2.StartRequest(evidence=[evidence], template="search", assignee=BOT)
    answer = server.call("main", "authz.v1.Tasks/Start", request.SerializeToString())
    return tasks_pb2.StartResponse.FromString(answer).task.id


def test_the_task_travels_to_us_alone(
    envoy: Envoy, server: Server, people: People, upstream: Upstream
) -> None:
    """The caller needs no token of the subject: the task is on its behalf. The upstream sees who, not by which task."""
    task = start(server, people)
    bearer = ("authorization", f"Bearer {people.bot}")

    def status(*headers: tuple[str, str]) -> int:
        return envoy.request("GET", "/customers?q=x", [bearer, *headers]).status

    before = len(upstream.seen)
    assert status() == 403
    assert status(("authz-task", "t-1")) == 403
    assert status(("authz-task", "t-1"), ("baggage", f"authz.task={task}")) == 400
    other = ("authorization", f"Bearer {people.idle}")
    assert envoy.request("GET", "/customers?q=x", [other, ("authz-task", task)]).status == 403
    assert len(upstream.seen) == before
    assert status(("baggage", f"authz.task={task}")) == 200
    answer = envoy.request("GET", "/customers?q=x", [bearer, ("authz-task", task)])
    assert answer.status == 200
    assert answer.echo["x-authz-agent"] == [BOT]
    assert answer.echo["x-authz-subject"] == ["corp/alice"]
    assert "authz-task" not in answer.echo
    end = tasks_pb2.EndRequest(task=task, status=tasks_pb2.TASK_STATUS_REVOKED)
    server.call("admin", "authz.v1.Tasks/End", end.SerializeToString())
    assert status(("authz-task", task)) == 401
