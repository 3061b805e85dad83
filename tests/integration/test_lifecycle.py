"""A server's life: reload, stop, crash; and that its record keeps what it answered."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from base64 import b64encode, urlsafe_b64decode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from authz.bundle import MANIFEST, seal_folder
from authz_client.v1 import admin_pb2
from tests.support.minting import DOMAIN, OTHER_DOMAIN, Authority, Key
from tests.support.people import People, delete, envoy_search, search
from tests.support.server import Server, command, layout
from tests.support.surfaces import CHECK, ENVOY, LANES, decision_of, outcome, reason_name
from tests.support.waiting import eventually

BROKEN = '@id("x") permit(principal in Role::"stafff", action, resource);\n'


@pytest.fixture(scope="module")
def people(authority: Authority) -> People:
    """Good credentials."""
    return People.of(authority)


@pytest.fixture
def server(authority: Authority, tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own."""
    with Server(layout(tmp_path, authority, "desk")) as running:
        yield running


def edit(server: Server, name: str, change: Callable[[str], str]) -> None:
    """Replaces a file of the bundle as careful tools do: whole."""
    path = server.place.folder / "bundle" / name
    aside = path.with_suffix(".new")
    shutil.copy(path, aside)
    aside.write_text(change(path.read_text()))
    aside.replace(path)


def revision(server: Server) -> str:
    """Returns the revision that answers."""
    return decision_of(server.call("main", CHECK, search(None))).bundle_revision


def reload(server: Server) -> admin_pb2.ReloadResponse:
    """Asks for a reload."""
    return admin_pb2.ReloadResponse.FromString(server.call("admin", "authz.v1.Admin/Reload", b""))


def to_two(text: str) -> str:
    """Raises the revision of the bundle."""
    return text.replace("desk-1", "desk-2")


def test_reload_by_admin(server: Server) -> None:
    """A good bundle serves at once, on both lanes."""
    edit(server, "bundle.yaml", to_two)
    answer = reload(server)
    assert (answer.reloaded, answer.bundle_revision) == (True, "desk-2")
    assert revision(server) == "desk-2"
    fast = decision_of(server.call("main-fast", CHECK, search(None)))
    assert fast.bundle_revision == "desk-2"


def test_reload_by_signal(server: Server) -> None:
    """SIGHUP reloads."""
    edit(server, "bundle.yaml", to_two)
    os.kill(server.pid, signal.SIGHUP)
    eventually(lambda: revision(server) == "desk-2", what="the new bundle serves")


def test_reload_by_watching(authority: Authority, tmp_path: Path) -> None:
    """A changed file is seen."""
    with Server(layout(tmp_path, authority, "desk", {"bundle": {"watch": True}})) as server:
        edit(server, "bundle.yaml", to_two)
        eventually(lambda: revision(server) == "desk-2", what="the new bundle serves")


def test_a_bad_bundle_changes_nothing(server: Server, people: People) -> None:
    """The old one goes on serving; the answer, the metric and readiness say why."""
    edit(server, "bundle.yaml", to_two)
    edit(server, "policies/desk.cedar", lambda text: text + BROKEN)
    answer = reload(server)
    assert (answer.reloaded, answer.bundle_revision) == (False, "desk-1")
    said = "\n".join(answer.diagnostics)
    assert "policies/desk.cedar:" in said
    assert "stafff" in said
    assert outcome(decision_of(server.call("main", CHECK, search(people.bot)))) == "PERMIT"
    assert revision(server) == "desk-1"
    assert server.metric("authz_policy_reload_total", result="failure") == 1
    status, text = server.http("/readyz")
    assert status == 200
    assert "stafff" in json.dumps(json.loads(text)["last_reload_refused"])
    stands = admin_pb2.StatusResponse.FromString(server.call("admin", "authz.v1.Admin/Status", b""))
    assert "stafff" in stands.last_reload_error
    assert stands.bundle_revision == "desk-1"

    edit(server, "policies/desk.cedar", lambda text: text.removesuffix(BROKEN))
    assert reload(server).reloaded
    assert revision(server) == "desk-2"
    assert json.loads(server.http("/readyz")[1])["last_reload_refused"] == []


def test_a_half_copied_bundle_is_never_served(authority: Authority, tmp_path: Path) -> None:
    """With `require_manifest`: each state of a copy, file by file, is refused until the last file has arrived."""
    place = layout(tmp_path, authority, "desk", {"bundle": {"require_manifest": True}})
    bundle = place.folder / "bundle"
    seal_folder(bundle)
    following = tmp_path / "following"
    shutil.copytree(bundle, following)
    for edited in ("bundle.yaml", "policies/desk.cedar"):
        (following / edited).write_text(to_two((following / edited).read_text()) + "\n")
    (following / "policies" / "more.cedar").write_text("// one more file\n")
    seal_folder(following)
    names = [
        path.relative_to(following)
        for path in sorted(following.rglob("*"))
        if path.is_file()
        and (
            not (bundle / path.relative_to(following)).exists()
            or (bundle / path.relative_to(following)).read_bytes() != path.read_bytes()
        )
    ]
    assert len(names) == 4
    with Server(place) as server:
        for number, name in enumerate(names, 1):
            shutil.copy(following / name, bundle / name)
            answer = reload(server)
            if number == len(names):
                assert (answer.reloaded, answer.bundle_revision) == (True, "desk-2")
                continue
            assert (answer.reloaded, answer.bundle_revision) == (False, "desk-1")
            assert "MANIFEST.sha256" in answer.diagnostics[0]
            assert revision(server) == "desk-1"
            assert server.metric("authz_policy_reload_total", result="failure") == number
        assert revision(server) == "desk-2"
        (bundle / MANIFEST).unlink()
        refused = reload(server)
        assert not refused.reloaded
        assert "`bundle.require_manifest` is true" in refused.diagnostics[0]
        assert revision(server) == "desk-2"


def test_a_config_map_is_followed_by_its_link(authority: Authority, tmp_path: Path) -> None:
    """The layout that kubelet writes: `bundle.yaml -> ..data/bundle.yaml`, `..data -> ..1`, and a new `..data` for a change."""
    place = layout(
        tmp_path, authority, "desk", {"bundle": {"watch": True, "require_manifest": True}}
    )
    bundle = place.folder / "bundle"
    source = tmp_path / "source"
    bundle.rename(source)
    bundle.mkdir()

    def publish(release: str) -> None:
        seal_folder(source)
        shutil.copytree(source, bundle / release)
        (bundle / "..data_tmp").symlink_to(release)
        (bundle / "..data_tmp").rename(bundle / "..data")
        for path in (bundle / release).iterdir():
            if not (bundle / path.name).is_symlink():
                (bundle / path.name).symlink_to(f"..data/{path.name}")

    publish("..1")
    with Server(place) as server:
        assert revision(server) == "desk-1"
        (source / "bundle.yaml").write_text(to_two((source / "bundle.yaml").read_text()))
        publish("..2")
        eventually(lambda: revision(server) == "desk-2", what="the new bundle serves")
        assert server.metric("authz_policy_reload_total", result="failure") == 0
        # The way back is the same: the link leads to the release before.
        (bundle / "..data_tmp").symlink_to("..1")
        (bundle / "..data_tmp").rename(bundle / "..data")
        eventually(lambda: revision(server) == "desk-1", what="the old bundle serves")


def test_an_odd_file_in_the_bundle_does_not_stop_the_node(server: Server, people: People) -> None:
    """A link that leads to itself, and a name that is not UTF-8: refused, told, and the old one serves."""
    bundle = server.place.folder / "bundle"

    def refused(times: int) -> None:
        os.kill(server.pid, signal.SIGHUP)
        eventually(
            lambda: server.metric("authz_policy_reload_total", result="failure") == times,
            what="the reload is refused",
        )
        assert outcome(decision_of(server.call("main", CHECK, search(people.bot)))) == "PERMIT"

    (bundle / "loop").symlink_to("loop")
    refused(1)
    assert "`loop` leads in a circle" in "\n".join(reload(server).diagnostics)
    (bundle / "loop").unlink()
    Path(os.fsdecode(os.fsencode(bundle) + b"/\xff.yaml")).write_text("a: 1\n")
    refused(3)
    status, text = server.http("/readyz")
    assert status == 200
    assert "is not UTF-8" in json.loads(text)["last_reload_refused"][0]
    assert "is not UTF-8" in "\n".join(reload(server).diagnostics)


def test_a_bundle_whose_own_tests_fail_is_refused(server: Server) -> None:
    """It compiles, but does not do what it says."""
    tests = server.place.folder / "bundle" / "tests"
    tests.mkdir()
    (tests / "own.yaml").write_text(
        json.dumps(
            {
                "fixtures": {"agents": {"bot": f"spiffe://{DOMAIN}/ns/support/sa/bot"}},
                "tests": [
                    {
                        "case": "agents may not search",
                        "as": {"agent": "bot"},
                        "call": "crm.search",
                        "input": {"query": "x"},
                        "expect": "DENY",
                    }
                ],
            }
        )
    )
    answer = reload(server)
    assert not answer.reloaded
    assert "agents may not search" in "\n".join(answer.diagnostics)
    assert revision(server) == "desk-1"


def test_no_wrong_answer_while_reloading(server: Server, people: People) -> None:
    """Under load, every answer is that of the old bundle or of the new one, never of neither."""
    stop = threading.Event()
    seen: list[tuple[str, str, str]] = []

    def ask(token: str, listener: str, wanted: str) -> None:
        while not stop.is_set():
            decision = decision_of(server.call(listener, CHECK, search(token)))
            seen.append((outcome(decision), wanted, decision.bundle_revision))

    with ThreadPoolExecutor(4) as pool:
        asking = [
            pool.submit(ask, token, "main" + lane, wanted)
            for lane in LANES
            for token, wanted in ((people.bot, "PERMIT"), (people.idle, "DENY"))
        ]
        for number in range(2, 6):
            before, after = f"desk-{number - 1}", f"desk-{number}"
            path = server.place.folder / "bundle" / "bundle.yaml"
            text = path.read_text().replace(before, after)
            edit(server, "bundle.yaml", lambda _, text=text: text)  # type: ignore[misc]
            assert reload(server).reloaded
        stop.set()
        for one in asking:
            one.result()
    assert [row for row in seen if row[0] != row[1]] == []
    assert {row[2] for row in seen} <= {f"desk-{number}" for number in range(1, 6)}


def test_a_key_that_is_withdrawn_stops_counting_at_once(server: Server, people: People) -> None:
    """A token that was verified, and is remembered, is refused once its key is gone."""
    assert outcome(decision_of(server.call("main", CHECK, search(people.bot)))) == "PERMIT"
    path = server.place.folder / "trust" / f"{DOMAIN}.json"
    other = Key.make("another")
    path.write_text(json.dumps({"keys": [other.jwk("jwt-svid")], "spiffe_sequence": 2}))
    assert reload(server).reloaded
    for lane in LANES:
        decision = decision_of(server.call("main" + lane, CHECK, search(people.bot)))
        assert outcome(decision) == "DENY"
        assert reason_name(decision) in {"UNTRUSTED_ISSUER", "BAD_CREDENTIAL"}


def test_an_emptied_trust_domain_is_refused_whole(
    server: Server, authority: Authority, people: People
) -> None:
    """An empty bundle means that nobody of the domain is believed, and readiness says so."""
    path = server.place.folder / "trust" / f"{OTHER_DOMAIN}.json"
    path.write_text(json.dumps({"keys": [], "spiffe_sequence": 2}))
    reload(server)
    partner = authority.agent(f"spiffe://{OTHER_DOMAIN}/ns/partner/sa/bot")
    decision = decision_of(server.call("main", CHECK, search(partner)))
    assert reason_name(decision) == "UNTRUSTED_ISSUER"
    assert outcome(decision_of(server.call("main", CHECK, search(people.bot)))) == "PERMIT"
    assert OTHER_DOMAIN in json.dumps(server.readiness()["trust"]["warnings"])


def test_stop(server: Server, people: People) -> None:
    """SIGTERM: health says NOT_SERVING, calls in flight are answered, the record is whole, exit 0."""
    stub: Any = health_pb2_grpc.HealthStub(server.channel("main"))
    watched = stub.Watch(health_pb2.HealthCheckRequest(service="authz.v1.Authorizer"))
    states: list[int] = []

    def watch() -> None:
        try:
            for answer in watched:
                states.append(answer.status)
                if answer.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                    watched.cancel()
        except grpc.RpcError:
            return

    watching = threading.Thread(target=watch)
    watching.start()
    eventually(lambda: states == [1], what="health says SERVING")
    answered: list[str] = []
    broken: list[str] = []

    def ask(listener: str) -> None:
        while True:
            try:
                decision = decision_of(
                    server.call(listener, CHECK, delete(people.bot, people.boss), timeout=3)
                )
            except (grpc.RpcError, ValueError) as error:
                broken.append(str(error))
                return
            answered.append(decision.decision_id)
            assert outcome(decision) in {"PERMIT", "DENY"}

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, "main" + lane) for lane in LANES for _ in range(2)]
        eventually(lambda: len(answered) > 50, what="calls are answered")
        assert server.process is not None
        server.process.terminate()
        assert server.process.wait(60) == 0
        server.disconnect()
        for one in asking:
            one.result()
    watching.join(5)
    assert states[-1] == health_pb2.HealthCheckResponse.NOT_SERVING
    recorded = {record["decision_id"] for record in server.records()}
    assert set(answered) <= recorded
    left = [path.name for path in server.place.sockets.iterdir()]
    assert left == []
    for line in server.log.read_text().splitlines():
        assert {"event", "level", "time"} <= json.loads(line).keys()


def test_kill_during_load(server: Server, people: People) -> None:
    """After `kill -9`, every decision of a high tier that a client got is in the audit file."""
    journal: list[str] = []
    stop = threading.Event()

    def ask(listener: str) -> None:
        while not stop.is_set():
            try:
                decision = decision_of(
                    server.call(listener, CHECK, delete(people.bot, people.boss), timeout=5)
                )
            except (grpc.RpcError, ValueError):
                return
            if outcome(decision) == "PERMIT":
                journal.append(decision.decision_id)

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask, "main" + lane) for lane in LANES for _ in range(4)]
        eventually(lambda: len(journal) > 300, what="decisions are answered")
        assert server.process is not None
        server.process.kill()
        server.process.wait(30)
        stop.set()
        server.disconnect()
        for one in asking:
            one.result()
    recorded = {record["decision_id"] for record in server.records()}
    assert [name for name in journal if name not in recorded] == []
    # A new start goes on where the file ends, and fixes a line that was cut.
    server.start()
    decision = decision_of(server.call("main", CHECK, delete(people.bot, people.boss)))
    assert server.record(decision.decision_id)


def test_audit_holds_no_token(server: Server, authority: Authority, people: People) -> None:
    """Neither good tokens nor bad ones, nor parts of them, get into the audit file or the log."""
    tokens = [
        people.bot,
        people.alice,
        *(
            authority.bad_agent(defect, f"spiffe://{DOMAIN}/ns/support/sa/bot")
            for defect in ("wrong-key", "expired", "wrong-aud", "cnf", "tampered-payload", "jku")
        ),
    ]
    for token in tokens:
        for lane in LANES:
            server.call("main" + lane, CHECK, search(token, people.alice))
            server.call("main" + lane, CHECK, search(people.bot, token))
            server.call("main" + lane, ENVOY, envoy_search(token))
            server.call("main" + lane, ENVOY, envoy_search(people.bot, f"/customers?q={token}"))
            server.call("main" + lane, ENVOY, envoy_search(people.bot, f"/{token}"))
            server.call(
                "none" + lane, CHECK, search(None), metadata=(("authorization", f"Bearer {token}"),)
            )
    last = decision_of(server.call("main", CHECK, delete(people.bot, people.boss)))
    server.record(last.decision_id)
    written = server.place.audit.read_bytes() + server.log.read_bytes()
    for token in tokens:
        for secret in _parts(token):
            assert secret not in written


def _parts(token: str) -> Iterator[bytes]:
    """Yields what would give a token away: its signature in each encoding, its payload, and itself."""
    _, payload, signature = token.split(".")
    yield token.encode()
    yield signature.encode()
    yield payload.encode()
    raw = urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    yield raw
    yield raw.hex().encode()
    yield b64encode(raw)
    yield b64encode(token.encode())


def second(server: Server, folder: Path) -> subprocess.CompletedProcess[str]:
    """Starts another server beside one that runs, and waits for it to give up."""
    return subprocess.run(
        [*command(), "serve", "--config", str(folder / "config.yaml")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=server.place.folder,
    )


def test_a_second_server_on_the_same_audit_file_refuses(server: Server) -> None:
    """Two writers would mix their lines; the first one goes on."""
    done = second(server, server.place.folder)
    assert done.returncode != 0
    assert "audit.jsonl" in done.stderr
    assert "Traceback" not in done.stderr
    assert revision(server) == "desk-1"


@pytest.mark.parametrize("listener", ["main", "main-fast", "crm-only", "crm-only-fast", "metrics"])
def test_a_second_server_on_the_same_address_refuses(
    server: Server, authority: Authority, tmp_path: Path, listener: str
) -> None:
    """It says which address, and leaves the first one alone, sockets too."""
    address = server.place.config["listeners"][listener]["address"]
    layout(tmp_path / "second", authority, "desk", {"listeners": {listener: {"address": address}}})
    done = second(server, tmp_path / "second")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert address.removeprefix("unix://") in done.stderr
    assert revision(server) == "desk-1"
    for name in ("crm-only", "crm-only-fast"):
        assert server.call(name, CHECK, search(None))


def test_metrics(server: Server, people: People) -> None:
    """Every family is there, with labels from closed sets: never an id, a path or a name of the caller's."""
    for lane in LANES:
        server.call("main" + lane, CHECK, search(people.bot, people.alice))
        server.call("main" + lane, ENVOY, envoy_search(people.idle))
        server.call("main" + lane, CHECK, search("x.y.z"))
    found: dict[str, set[str]] = {}
    values: set[str] = set()
    for name, labels, _ in server.samples():
        found.setdefault(name, set()).update(labels)
        if not name.endswith("_info"):
            values.update(labels.values())
    decisions = {"decision", "reason_code", "system", "tier", "surface", "enforced"}
    wanted: dict[str, set[str]] = {
        "authz_decisions_total": decisions,
        "authz_decision_duration_seconds_bucket": {"le"},
        "authz_token_verify_duration_seconds_bucket": {"le"},
        "authz_policy_reload_total": {"result"},
        "authz_policy_last_success_timestamp_seconds": set(),
        "authz_cache_requests_total": {"cache", "result"},
        "authz_identified_total": {"enforcer", "agent"},
        "authz_build_info": {"version", "profile"},
        "grpc_server_handled_total": {"grpc_service", "grpc_method", "grpc_code"},
        "grpc_server_handling_seconds_count": {"grpc_service", "grpc_method"},
    }
    missing = {
        name: labels for name, labels in wanted.items() if not labels <= found.get(name, set())
    }
    assert missing == {name: labels for name, labels in missing.items() if not labels}, found.keys()
    assert wanted.keys() <= found.keys()
    assert found["authz_decisions_total"] == decisions
    assert not [
        value for value in values if "spiffe:" in value or "alice" in value or "/cust" in value
    ]


def test_decided_is_counted_once(server: Server, people: People) -> None:
    """One decision, one count, with what it was."""

    def count() -> float:
        return server.metric(
            "authz_decisions_total",
            decision="permit",
            reason_code="PERMITTED",
            system="crm",
            tier="low",
            surface="check",
        )

    before = count()
    for _ in range(5):
        for lane in LANES:
            server.call("main" + lane, CHECK, search(people.bot))
    assert count() - before == 10


def test_insecure_dev_is_shown(server: Server, people: People) -> None:
    """Readiness and every record say that the listener identifies nobody."""
    detail: dict[str, Any] = server.readiness()
    assert set(detail["insecure_dev"]) == {"main", "main-fast"}
    decision = decision_of(server.call("main", CHECK, search(people.bot)))
    assert server.record(decision.decision_id)["input"]["enforcer"] == "insecure_dev"


def test_unanswered_time_is_bounded(server: Server, people: People) -> None:
    """A caller with little time gets an answer within it, or none; never a late one."""
    send: Any = server.channel("main").unary_unary(f"/{CHECK}")
    for timeout in (0.001, 0.01, 0.1):
        started = time.monotonic()
        call = send.future(search(people.bot), timeout=timeout)
        if call.code() is grpc.StatusCode.OK:
            assert reason_name(decision_of(call.result())) in {"PERMITTED", "DEADLINE"}
        else:
            assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - started < timeout + 5
