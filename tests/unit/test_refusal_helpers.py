"""Helpers that claim a refusal fail where something is permitted: none of their assertions holds for any answer.

Each is run against a server that refuses rightly, where it must pass, and then against one that permits by one of the methods that
the helper asks: with an answer that is a permit, and with one that is a permit and names the refusal. `CLAIMS` lists the helpers. A
new one is found by what its source says, and has to be put there, or among the `OTHERS` that claim no refusal.
"""

import ast
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from authz_client.v1 import authorizer_pb2_grpc, credentials_pb2, decision_pb2
from tests.conformance import test_case_files as case_files
from tests.conformance import test_case_traces as case_traces
from tests.conformance import test_ext_authz as ext_authz
from tests.conformance import test_who_may_say_what as who_may_say_what
from tests.crash import oracle as crash_oracle
from tests.crash.journal import Entry
from tests.integration import test_credentials as credentials
from tests.integration import test_envoy as through_envoy
from tests.integration import test_failures as failures
from tests.integration import test_mutual_tls as mutual_tls
from tests.integration import test_revoke as revoked
from tests.integration import test_shared_state as shared_state
from tests.property import test_hostile_input as hostile_input
from tests.race import oracle as race_oracle
from tests.race.client import Caller
from tests.support import surfaces
from tests.support.cases import As, CaseFile, Flat, load
from tests.support.envoy import Answer
from tests.support.minting import Authority
from tests.support.mutual import Pki, mutual_layout
from tests.support.people import BOT, People, envoy_search, search
from tests.support.permissive import PermissiveServer, decision, envoy_answer
from tests.support.server import layout
from tests.support.surfaces import BATCH, CHECK, ENVOY
from tests.support.upstream import Upstream
from tests.support.working import WORKERS, Crew

TESTS: Final = Path(__file__).parents[1]
FOLDERS: Final = ("conformance", "crash", "golden", "integration", "property", "race", "support")
ISSUE: Final = "authz.v1.Credentials/Issue"
INTROSPECT: Final = "authz.v1.Credentials/Introspect"
START: Final = "authz.v1.Tasks/Start"
#: What stands for a method where the helper is given the answer itself.
VALUE: Final = "value"


@dataclass
class Scene:
    """What a helper is run against."""

    server: PermissiveServer
    authority: Authority
    #: What permits, with which reason; empty where all is refused.
    permits: str
    says: str
    pki: Pki | None

    @property
    def people(self) -> People:
        """The principals of the bundle `desk`."""
        return People.of(self.authority)

    def decision(self) -> Any:
        """A decision, where the helper is given one."""
        is_permit = self.permits == VALUE
        return decision(self.says if is_permit else self.server.reason, permits=is_permit)

    def envoy_answer(self) -> Any:
        """An answer to Envoy, where the helper is given one."""
        is_permit = self.permits == VALUE
        return envoy_answer(self.says if is_permit else self.server.reason, permits=is_permit)

    def call(self, method: str, request: bytes = b"") -> bytes:
        """Asks the server."""
        return self.server.call("main", method, request)

    def http_answer(self, status: int, body: str) -> Answer:
        """What a client of Envoy gets: a page, or this refusal."""
        if self.permits == VALUE:
            text = body if self.says != "PERMITTED" else "{}"
            return Answer(200, (), text.encode())
        return Answer(status, (), body.encode())

    def run(self, *steps: dict[str, Any]) -> case_traces.Run:
        """A trace of the bundle `desk`, by an agent."""
        trace = {"trace": "tiny", "as": {"agent": BOT}, "steps": list(steps)}
        file = CaseFile.model_validate({"bundle": "desk", "tests": [trace]})
        return case_traces.Run(self.server, self.authority, file, file.tests[0], "")


@dataclass(frozen=True)
class Claim:
    """A helper that claims a refusal.

    Attributes:
        holds: Runs the helper; false, or an exception, where the claim does not hold.
        reason: The refusal that it claims.
        asks: The methods that it asks, `VALUE` where it is given an answer.
        mutual: Whether the server's listeners have TLS.
    """

    holds: Callable[[Scene], object]
    reason: str
    asks: tuple[str, ...] = (VALUE,)
    mutual: bool = False


def passes(call: Callable[..., object], *arguments: Any, **named: Any) -> bool:
    """Runs a helper that asserts and returns nothing."""
    call(*arguments, **named)
    return True


# --- how each is run

HTTP_STEP: Final = {"method": "GET", "host": "crm.example", "path": "/customers?q=x"}
CASE: Final[Flat] = next(
    case
    for case in load()
    if case.step.http is not None
    and case.step.wanted.code == "FORBIDDEN"
    and case.step.wanted.answer == "http"
)


class OneEnvoy:
    """What `send` needs of an Envoy: it lets requests through to the upstream, or answers itself."""

    def __init__(self, scene: Scene, upstream: Upstream) -> None:
        self._scene = scene
        self._upstream = upstream

    def request(self, *_: Any) -> Answer:
        """Answers."""
        if self._scene.permits == VALUE:
            self._upstream.seen.append(object())  # type: ignore[arg-type]
        return self._scene.http_answer(403, '{"public_code": "DENIED"}')


def send(scene: Scene) -> bool:
    """Sends a case that is denied."""
    upstream: Any = Upstream()
    envoys: Any = {"": OneEnvoy(scene, upstream)}
    try:
        return passes(through_envoy.send, CASE, envoys, scene.authority, upstream)
    finally:
        upstream._server.server_close()


def compare(scene: Scene) -> bool:
    """Compares a decision with a case that is denied."""
    wanted = CASE.step.wanted.model_copy(
        update={"policies": None, "policy": None, "controls": None, "tier": None, "resource": None}
    )
    return not case_files.compare(scene.decision(), wanted)


def trace(scene: Scene, **step: Any) -> bool:
    """Plays a trace of one step."""
    return not scene.run(step).go()


def introspect(scene: Scene) -> bool:
    """Looks at a credential that is revoked."""
    run = scene.run({"introspect": "one", "expect": "REVOKED"})
    run.credentials["one"] = case_traces.Held("a.b.c", None, As(agent=BOT))
    return not run.go()


def stated(scene: Scene, over: str) -> bool:
    """Asks with a statement that is denied, of which the record says so."""
    row = who_may_say_what.Row(
        fact="", over=over, by="nobody", say={}, then="denied", code=scene.server.reason
    )
    stage = who_may_say_what.Stage(scene.server, scene.server, scene.authority, scene.pki)  # type: ignore[arg-type]
    listener = {"nobody": "main"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(who_may_say_what, "LISTENERS", listener)
        return bool(who_may_say_what.came_of(stage.ask(row, "", ()))[0] == scene.server.reason)


def judged(scene: Scene) -> bool:
    """Asks with a certificate."""
    assert scene.pki is not None
    shown = scene.pki.credentials(scene.pki.a.svid(BOT))
    code, _ = mutual_tls.judged(scene.server, "mutual", shown, search(None))
    return code == scene.server.reason


def raced(scene: Scene) -> bool:
    """One permit beyond the most that may be, as the client of the race asks for it."""
    stub = authorizer_pb2_grpc.AuthorizerStub(scene.server.channel("main"))
    caller = Caller(0, stub, None, [], None)  # type: ignore[arg-type]
    code, _ = caller._ask(decision_pb2.CheckRequest())
    times = ((1.0, 2.0, "PERMITTED"), (3.0, 4.0, code))
    answers = [race_oracle.Answer("desk.note", "t-1", *one) for one in times]
    limit = race_oracle.Limit("uses", 1, scene.server.reason, lambda _: True)
    return not list(race_oracle.violations(answers, [limit], []))


def crashed(scene: Scene) -> bool:
    """A permit after the end of its task, by the journal of the crash tests."""
    permit = scene.decision().outcome == decision().outcome
    entries = [
        Entry("1", {"kind": "start"}, 1, {"task": "t-1"}, 2),
        Entry("2", {"kind": "end", "task": "t-1"}, 3, {"ended": 1}, 4),
        Entry(
            "3",
            {"kind": "check", "task": "t-1", "operation": "desk.look"},
            5,
            {"permit": permit, "decision": "d-1"},
            6,
        ),
    ]
    wanted = crash_oracle.expected(entries)
    return not crash_oracle.violations(wanted, {"t-1": "COMPLETED"}, {}, {"d-1"})


def crew(scene: Scene) -> Crew:
    """Callers of the bundle `work`."""
    return Crew.of(scene.authority)


def out_of_reach(scene: Scene) -> bool:
    """Waits for a server that is not ready."""
    return passes(shared_state.unready, crew(scene), scene.server, "t-1")


CLAIMS: Final[dict[str, Claim]] = {
    "conformance/test_case_files.py::compare": Claim(compare, "FORBIDDEN"),
    "conformance/test_case_files.py::compare_envoy": Claim(
        lambda scene: not case_files.compare_envoy(scene.envoy_answer(), CASE.step), "FORBIDDEN"
    ),
    "conformance/test_case_traces.py::Run.ask": Claim(
        lambda scene: trace(
            scene,
            call="crm.search",
            http=HTTP_STEP,
            input={"query": "x"},
            expect={"outcome": "DENY", "code": "FORBIDDEN"},
        ),
        "FORBIDDEN",
        (CHECK, ENVOY),
    ),
    "conformance/test_case_traces.py::Run.envoy": Claim(
        lambda scene: trace(scene, http=HTTP_STEP, expect={"outcome": "DENY", "code": "FORBIDDEN"}),
        "FORBIDDEN",
        (ENVOY,),
    ),
    "conformance/test_case_traces.py::Run.act": Claim(
        lambda scene: trace(scene, start={"template": "x"}, expect="NOT_PERMITTED"),
        "NOT_PERMITTED",
        (START,),
    ),
    "conformance/test_case_traces.py::Run.introspect": Claim(introspect, "REVOKED", (INTROSPECT,)),
    "conformance/test_ext_authz.py::is_denial": Claim(
        lambda scene: ext_authz.is_denial(scene.envoy_answer()), "FORBIDDEN"
    ),
    "conformance/test_who_may_say_what.py::Stage.ask": Claim(
        lambda scene: stated(scene, "own"), "NO_CREDENTIAL", (CHECK,)
    ),
    "conformance/test_who_may_say_what.py::came_of": Claim(
        lambda scene: stated(scene, "ext_authz"), "NO_CREDENTIAL", (ENVOY,)
    ),
    "crash/oracle.py::violations": Claim(crashed, "TASK_ENDED"),
    "integration/test_credentials.py::raises": Claim(
        lambda scene: passes(
            credentials.raises,
            grpc.StatusCode.PERMISSION_DENIED,
            "NOT_ASSIGNEE",
            scene.call,
            ISSUE,
            credentials_pb2.IssueRequest().SerializeToString(),
        ),
        "NOT_ASSIGNEE",
        (ISSUE,),
    ),
    "integration/test_envoy.py::refused": Claim(
        lambda scene: through_envoy.refused(
            scene.http_answer(403, '{"public_code": "DENIED"}'), 403, "DENIED"
        ),
        "FORBIDDEN",
    ),
    "integration/test_envoy.py::send": Claim(send, "FORBIDDEN"),
    "integration/test_failures.py::reasons": Claim(
        lambda scene: failures.reasons([scene.call(CHECK)]) == {"OVERLOADED"},
        "OVERLOADED",
        (CHECK,),
    ),
    "integration/test_mutual_tls.py::judged": Claim(judged, "NO_CREDENTIAL", (CHECK,), mutual=True),
    "integration/test_revoke.py::refused_everywhere": Claim(
        lambda scene: passes(revoked.refused_everywhere, scene.server, scene.people),
        "REVOKED",
        (CHECK, ENVOY),
    ),
    "integration/test_shared_state.py::broken": Claim(
        lambda scene: passes(shared_state.broken, crew(scene), scene.server, "t-1", "main"),
        "STATE_UNAVAILABLE",
        (CHECK,),
    ),
    "integration/test_shared_state.py::unready": Claim(out_of_reach, "STATE_UNAVAILABLE", (CHECK,)),
    "property/test_hostile_input.py::denied": Claim(
        lambda scene: hostile_input.denied(scene.server, "", b"") == "BAD_INPUT",
        "BAD_INPUT",
        (CHECK,),
    ),
    "property/test_hostile_input.py::envoy_denied": Claim(
        lambda scene: (
            hostile_input.envoy_denied(scene.server, "", envoy_search(None)) == "BAD_INPUT"
        ),
        "BAD_INPUT",
        (ENVOY,),
    ),
    "property/test_hostile_input.py::batch_denied": Claim(
        lambda scene: passes(hostile_input.batch_denied, scene.server, b""), "BAD_INPUT", (BATCH,)
    ),
    "race/oracle.py::violations": Claim(raced, "USES_EXHAUSTED", (CHECK,)),
    "support/surfaces.py::reason_name": Claim(
        lambda scene: surfaces.reason_name(scene.decision()) == "FORBIDDEN", "FORBIDDEN"
    ),
    "support/surfaces.py::envoy_reason": Claim(
        lambda scene: surfaces.envoy_reason(scene.envoy_answer()) == "FORBIDDEN", "FORBIDDEN"
    ),
    "support/working.py::Crew.check": Claim(
        lambda scene: crew(scene).check(scene.server, "t-1", "desk.note") == "TASK_ENDED",
        "TASK_ENDED",
        (CHECK,),
    ),
    "support/working.py::Crew.left": Claim(
        lambda scene: crew(scene).left(scene.server, "t-1", "desk.wipe") == 0,
        "USES_EXHAUSTED",
        (CHECK,),
    ),
    "support/working.py::Crew.tallies_left": Claim(
        lambda scene: crew(scene).tallies_left(scene.server, WORKERS[0]) == 0,
        "BUDGET_EXCEEDED",
        (CHECK,),
    ),
}
#: Helpers that look like it, and why they claim no refusal.
OTHERS: Final[dict[str, str]] = {
    "support/cases.py::Case.has_rejections": "tells whether a person rejects a call",
    "conformance/test_case_traces.py::refused": "reads the reason of an error",
    "support/audit_cases.py::refused": "makes a record",
    "crash/client.py::refused": "tells errors apart",
    "integration/test_approvals.py::step_up_of": "returns the step-up that the call must raise",
    "integration/test_approvals_page.py::waiting": "returns the step-up that the call must raise",
    "integration/test_detection_bundles.py::_agrees": (
        "compares a server's answers, read by `reason_name`, with those of the engine"
    ),
    "integration/test_envoy_access_log.py::test_a_proxy_that_may_not_is_not_heard.refused": "counts",
    "integration/test_fast_lane.py::refused": "reads a metric",
    "integration/test_lifecycle.py::test_an_odd_file_in_the_bundle_does_not_stop_the_node.refused": (
        "claims that a reload is refused, and that calls are permitted"
    ),
    "integration/test_shared_state.py::unready.denies": "part of `unready`, which is a claim",
    "integration/test_tasks.py::refused": "reads the reason of an error",
}


@contextmanager
def scene_of(
    claim: Claim, permits: str, says: str, authority: Authority, folder: Path
) -> Iterator[Scene]:
    """A server that refuses as claimed, but for one method."""
    folder.mkdir()
    pki = Pki(folder / "pki") if claim.mutual else None
    if pki is not None:
        place = mutual_layout(folder / "node", authority, pki)
    else:
        place = layout(folder / "node", authority, "desk")
    refusing = {*claim.asks} - {permits}
    server = PermissiveServer(
        place, says=says, refusing=refusing, reason=claim.reason, ready=bool(permits)
    )
    with server:
        yield Scene(server, authority, permits, says, pki)


def at_once(probe: Callable[[], object], **_: Any) -> None:
    """In the place of `eventually`: these servers do not change."""
    assert probe()


@pytest.fixture(scope="module")
def authority() -> Authority:
    """Fresh keys."""
    return Authority()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_state, "eventually", at_once)


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_holds_of_a_refusal(name: str, authority: Authority, tmp_path: Path) -> None:
    """So that what follows fails because of the permit."""
    claim = CLAIMS[name]
    with scene_of(claim, "", "PERMITTED", authority, tmp_path / "scene") as scene:
        assert claim.holds(scene)


@pytest.mark.parametrize(
    ("name", "permits"), [(name, method) for name, claim in CLAIMS.items() for method in claim.asks]
)
def test_a_claim_fails_of_a_permit(
    name: str, permits: str, authority: Authority, tmp_path: Path
) -> None:
    """Also where the permit names the refusal, and where everything else refuses."""
    claim = CLAIMS[name]
    for says in ("PERMITTED", claim.reason):
        with scene_of(claim, permits, says, authority, tmp_path / says) as scene:
            try:
                holds = claim.holds(scene)
            except (AssertionError, ValueError, pytest.fail.Exception):
                continue
            assert not holds, f"{name} takes a permit by {permits} that says {says} for a refusal"


# --- no helper is forgotten

_NAME: Final = re.compile(r"refus|den(y|ied|ies)|reject|forbid|revoked|unauthor|not_permitted")
_SAYS: Final = re.compile(
    r"DEN(Y|IED)|STEP_UP|REVOKED|EXHAUSTED|EXCEEDED|UNAVAILABLE|BAD_INPUT|OUT_OF_REACH|NOT_PERMITTED"
    r"|!= .?PERMIT|== 40[0-9]|<= answer\.status"
)
_RAISES: Final = re.compile(
    r"raises\((\()?(grpc\.RpcError|Denied|Refused|StepUp|Unavailable|Exception)"
)


def suspects(text: str) -> Iterator[str]:
    """Yields the functions of a module, tests and fixtures aside, whose name or assertions speak of refusals.

    Args:
        text: The source.
    """

    def visit(node: ast.AST, within: tuple[str, ...], *, in_test: bool) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                yield from visit(child, (*within, child.name), in_test=in_test)
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                name = (*within, child.name)
                decorators = " ".join(ast.unparse(one) for one in child.decorator_list)
                is_test = child.name.startswith("test_") or "fixture" in decorators
                if not is_test and _speaks(child, in_test=in_test):
                    yield ".".join(name)
                yield from visit(child, name, in_test=in_test or is_test)
            else:
                yield from visit(child, within, in_test=in_test)

    return visit(ast.parse(text), (), in_test=False)


def _speaks(function: ast.FunctionDef | ast.AsyncFunctionDef, *, in_test: bool) -> bool:
    if _NAME.search(function.name):
        return True
    # A function within a test is part of what that test asserts.
    asserted = [ast.unparse(one) for one in ast.walk(function) if isinstance(one, ast.Assert)]
    return not in_test and (
        any(_SAYS.search(one) for one in asserted)
        or _RAISES.search(ast.unparse(function)) is not None
    )


def test_every_helper_that_claims_a_refusal_is_listed() -> None:
    """A new one is put into `CLAIMS`, with how it is run, or into `OTHERS`, with the reason why not."""
    found = {
        f"{path.relative_to(TESTS)}::{name}"
        for folder in FOLDERS
        for path in sorted((TESTS / folder).rglob("*.py"))
        for name in suspects(path.read_text())
    }
    assert found - CLAIMS.keys() - OTHERS.keys() == set()
    assert OTHERS.keys() - found == set()
    assert not OTHERS.keys() & CLAIMS.keys()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("def refused(): pass", ["refused"]),
        ("def look(a): assert a == 'DENY'", ["look"]),
        ("class A:\n  def look(self):\n    with pytest.raises(Denied): pass", ["A.look"]),
        (
            "def test_a():\n  def denies(): pass\n  def f():\n    assert x == 'DENY'",
            ["test_a.denies"],
        ),
        ("def look(a): assert a == 'PERMIT'", []),
        ("@pytest.fixture\ndef denied(): pass", []),
    ],
)
def test_helpers_are_found(text: str, names: list[str]) -> None:
    """By name, and by what they assert."""
    assert list(suspects(text)) == names
