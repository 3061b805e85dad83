"""Our own failures, brought about for real: each is a denial with its own reason code, and each passes."""

import json
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from authz import _native
from authz.engine import default_settings
from authz.model import CallFacts
from authz.thirdparty.envoy.service.auth.v3 import external_auth_pb2
from authz_client.v1 import admin_pb2, decision_pb2, options_pb2
from tests.support.locked import locked_store
from tests.support.minting import Authority
from tests.support.people import BOT, People, check, delete, envoy_search, search
from tests.support.server import Server, layout
from tests.support.stalled import StalledCalls
from tests.support.surfaces import CHECK, ENVOY, LANES, decision_of, outcome, reason_name
from tests.support.waiting import eventually

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def people(authority: Authority) -> People:
    """Good credentials."""
    return People.of(authority)


@pytest.fixture
def small(authority: Authority, tmp_path: Path) -> Iterator[Server]:
    """A server with one thread, one place to wait, and little patience."""
    limits = {
        "threads": 1,
        "queue": 1,
        "fast_threads": 2,
        "fast_concurrency": 1,
        "probe_rate": 1,
    }
    with Server(layout(tmp_path, authority, "desk", {"limits": limits})) as server:
        yield server


def burst(server: Server, listener: str, request: bytes, *, calls: int = 512) -> list[bytes]:
    """Sends many calls at once; each must be answered, none may end as an RPC error."""
    with ThreadPoolExecutor(64) as pool:
        asked = [
            pool.submit(server.call, listener, CHECK, request, timeout=30) for _ in range(calls)
        ]
        return [future.result() for future in asked]


def reasons(answers: list[bytes]) -> set[str]:
    """Returns the reason codes of answers."""
    return {reason_name(decision_of(answer)) for answer in answers}


@pytest.mark.parametrize("lane", LANES)
def test_overloaded(small: Server, people: People, lane: str) -> None:
    """OVERLOADED: threads and queue are full; the call is answered all the same, with a denial."""
    found: set[str] = set()
    request = delete(people.bot, people.boss)
    for _ in range(20):
        found |= reasons(burst(small, "main" + lane, request))
        if "OVERLOADED" in found:
            break
    assert found == {"PERMITTED", "OVERLOADED"}
    assert reasons([small.call("main" + lane, CHECK, request)]) == {"PERMITTED"}
    assert small.metric("authz_decisions_total", reason_code="OVERLOADED") > 0


@pytest.mark.parametrize("lane", LANES)
def test_overloaded_by_probes(small: Server, people: People, lane: str) -> None:
    """OVERLOADED: PROBE has a rate of its own, and its excess harms no other request."""
    mode = decision_pb2.MODE_PROBE
    request = check(
        "crm.search", b'{"query": "x"}', agent=people.bot, subject=people.boss, mode=mode
    )
    data = request.SerializeToString()
    found: list[str] = []
    while "OVERLOADED" not in found and len(found) < 2000:
        found.append(reason_name(decision_of(small.call("main" + lane, CHECK, data))))
    assert found[0] == "PERMITTED"
    assert found[-1] == "OVERLOADED"
    answer = small.call("main" + lane, CHECK, search(people.bot))
    assert reasons([answer]) == {"PERMITTED"}


def test_deadline(authority: Authority, people: People, tmp_path: Path) -> None:
    """DEADLINE: the time that a call has runs out while it waits for a thread."""
    limits = {"threads": 1, "queue": 4096, "default_deadline": "10ms"}
    with Server(layout(tmp_path, authority, "desk", {"limits": limits})) as server:
        send: Any = server.channel("main").unary_unary(f"/{CHECK}")
        found: set[str] = set()
        for _ in range(20):
            # Without a deadline of the caller's own, so that only the server's counts.
            calls = [send.future(search(people.bot), wait_for_ready=True) for _ in range(400)]
            found |= reasons([call.result() for call in calls])
            if "DEADLINE" in found:
                break
        assert "DEADLINE" in found
        assert found <= {"DEADLINE", "PERMITTED", "OVERLOADED"}
        assert server.metric("authz_decisions_total", reason_code="DEADLINE") > 0


@pytest.mark.parametrize("lane", LANES)
def test_audit_full(authority: Authority, people: People, tmp_path: Path, lane: str) -> None:
    """AUDIT_FULL: what cannot be recorded is not permitted, on any surface; once it can be, all is well."""
    with Server(layout(tmp_path, authority, "desk")) as server:
        listener = "main" + lane
        request = delete(people.bot, people.boss)

        def reason() -> str:
            return reason_name(decision_of(server.call(listener, CHECK, request)))

        # The limit below is one of the process: its log must not be what runs into it.
        for _ in range(100):
            assert reason() == "PERMITTED"
        size = server.place.audit.stat().st_size
        assert size > server.log.stat().st_size + 16_384
        _, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (size, hard))
        assert reason() == "AUDIT_FULL"
        # Low tiers are not waited for, but are refused too once the disk is known to be full.
        eventually(
            lambda: reasons([server.call(listener, CHECK, search(people.bot))]) == {"AUDIT_FULL"},
            what="low tiers are refused",
        )
        answer = external_auth_pb2.CheckResponse.FromString(
            server.call(listener, ENVOY, envoy_search(people.bot))
        )
        assert (answer.status.code, answer.denied_response.status.code) == (14, 503)
        status, text = server.http("/readyz")
        assert status == 503
        assert "audit" in text
        eventually(lambda: "is not ready" in server.log.read_text(), what="the log says so")
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (hard, hard))
        eventually(lambda: reason() == "PERMITTED", what="it recovers by itself")
        eventually(lambda: server.http("/readyz")[0] == 200, what="it says so")
        eventually(lambda: "is ready" in server.log.read_text(), what="so does the log")
        assert all(record["decision_id"] for record in server.records())


def test_unavailable(people: People, tmp_path: Path) -> None:
    """UNAVAILABLE: an engine that has loaded nothing denies whatever it is asked."""
    settings = json.dumps(default_settings(str(tmp_path / "audit.jsonl"))).encode()
    engine = _native.Engine(settings)
    decision = decision_of(engine.check(search(people.bot), CallFacts("main")))
    assert outcome(decision) == "DENY"
    # Nothing says yet who may ask, so the code itself is for the record only.
    assert decision.public_code == options_pb2.PUBLIC_CODE_UNAVAILABLE
    answer = external_auth_pb2.CheckResponse.FromString(
        engine.envoy_check(envoy_search(people.bot), CallFacts("main"))
    )
    assert (answer.status.code, answer.denied_response.status.code) == (14, 503)
    engine.close()


def test_a_store_that_is_locked_is_told_and_loses_nothing(
    authority: Authority, people: People, tmp_path: Path
) -> None:
    """Transactions of the store fail, which is counted; changes wait in the journal, and are there after the lock and a crash."""
    place = layout(tmp_path, authority, "desk")
    revoke = admin_pb2.AdminRevokeRequest(agent=BOT).SerializeToString()
    with Server(place) as server:
        assert server.metric("authz_store_failures_total") == 0
        assert reasons([server.call("main", CHECK, delete(people.bot, people.boss))]) == {
            "PERMITTED"
        }
        with locked_store(place.audit.parent / "state" / "state.db"):
            server.call("admin", "authz.v1.Admin/Revoke", revoke)
            eventually(lambda: server.metric("authz_store_failures_total") > 0)
            assert reasons([server.call("main", CHECK, delete(people.bot, people.boss))]) == {
                "REVOKED"
            }
        failed = server.metric("authz_store_failures_total")
        assert server.process is not None
        server.process.kill()
        server.process.wait(10)
    with Server(place) as server:
        assert failed > 0
        assert reasons([server.call("main", CHECK, delete(people.bot, people.boss))]) == {"REVOKED"}


def test_a_closed_engine_permits_nothing(people: People, tmp_path: Path) -> None:
    """After the end nothing can be recorded, so nothing is permitted."""
    engine = _native.Engine(json.dumps(default_settings(str(tmp_path / "a.jsonl"))).encode())
    engine.close()
    engine.close()
    assert outcome(decision_of(engine.check(search(people.bot), CallFacts("main")))) == "DENY"


@pytest.mark.parametrize("surface", ["check", "batch_check", "ext_authz"])
@pytest.mark.parametrize("reason", ["OVERLOADED", "DEADLINE", "UNAVAILABLE", "PERMITTED", ""])
def test_ready_refusals_never_permit(tmp_path: Path, surface: str, reason: str) -> None:
    """Whatever is asked of the ready answers, they are denials."""
    engine = _native.Engine(json.dumps(default_settings(str(tmp_path / "a.jsonl"))).encode())
    answer = engine.refusal(surface, reason)
    if surface == "ext_authz":
        response = external_auth_pb2.CheckResponse.FromString(answer)
        assert response.status.code != 0
        assert response.denied_response.status.code in {429, 503}
    else:
        assert outcome(decision_of(answer)) == "DENY"
    engine.close()


def test_a_surface_that_is_none_gets_no_answer(tmp_path: Path) -> None:
    """There is no message that would be a denial of it."""
    engine = _native.Engine(json.dumps(default_settings(str(tmp_path / "a.jsonl"))).encode())
    with pytest.raises(ValueError, match="no surface"):
        engine.refusal("nonsense", "OVERLOADED")
    engine.close()


@pytest.mark.parametrize("lane", LANES)
def test_slow_senders_hold_nobody_up(
    authority: Authority, people: People, tmp_path: Path, lane: str
) -> None:
    """Calls whose message never comes are given up, and the others are answered again."""
    limits = {
        "threads": 2,
        "queue": 4,
        "fast_threads": 2,
        "fast_concurrency": 4,
        "receive_timeout": "500ms",
    }
    with Server(layout(tmp_path, authority, "desk", {"limits": limits})) as server:
        listener = "main" + lane
        request = search(people.bot)

        def reason() -> str:
            return reason_name(decision_of(server.call(listener, CHECK, request, timeout=20)))

        assert reason() == "PERMITTED"
        with StalledCalls(server.port(listener), CHECK, 16):
            eventually(lambda: reason() == "PERMITTED", what="calls are answered")
        # A stalled call may have arrived after the answer; each of them is given up in time.
        eventually(lambda: all(reason() == "PERMITTED" for _ in range(20)), what="all answered")
