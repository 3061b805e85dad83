"""Keys that are fetched, by a real server from a real web server."""

import json
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.keyserver import Answer, KeyServer
from tests.support.minting import DOMAIN, Authority, Key
from tests.support.people import check
from tests.support.server import Server, command, layout
from tests.support.surfaces import CHECK, LANES, decision_of, reason_name
from tests.support.waiting import eventually

BOT = f"spiffe://{DOMAIN}/ns/support/sa/bot"
QUICK = {"min": "1s", "max": "1s", "timeout": "500ms", "max_staleness": "24h"}
DISCOVERY = "/.well-known/openid-configuration"


@dataclass
class Scene:
    """A node whose keys lie on a web server."""

    authority: Authority
    web: KeyServer
    server: Server

    @classmethod
    def set_up(cls, folder: Path, web: KeyServer, ca_file: Path, refresh: dict[str, str]) -> Self:
        """Lays everything out, and starts nothing."""
        own = Authority()
        corp = replace(own.issuers["corp"], iss=web.url())
        authority = replace(own, issuers={**own.issuers, "corp": corp})
        how = {"ca_file": str(ca_file), "allow_private": True}
        place = layout(folder, authority, "desk")
        trust = place.config["trust"]
        trust["domains"][DOMAIN]["bundle"] = {"url": web.url("/bundle"), **how}
        trust["issuers"]["corp"]["jwks"] = how
        trust["refresh"] = refresh
        place.write()
        made = cls(authority, web, Server(place))
        made.publish()
        return made

    def publish(self, *more: Key, sequence: int = 1) -> None:
        """Puts the keys on the web, with more of them beside."""
        bundle = json.loads(self.authority.bundle(DOMAIN))
        bundle["keys"] += [key.jwk("jwt-svid") for key in more]
        bundle["spiffe_sequence"] = sequence
        self.web.answers |= {
            "/bundle": Answer(json.dumps(bundle)),
            DISCOVERY: Answer(
                json.dumps({"issuer": self.web.url(), "jwks_uri": self.web.url("/jwks")})
            ),
            "/jwks": Answer(self.authority.jwks("corp")),
        }

    def asks(self, lane: str = "", token: str | None = None) -> str:
        """Asks as an agent for a subject; returns the reason."""
        agent = token if token is not None else self.authority.agent(BOT)
        subject = self.authority.subject("alice", "corp", groups=["employees"])
        request = check("crm.search", b'{"query": "x"}', agent=agent, subject=subject)
        answer = self.server.call(f"main{lane}", CHECK, request.SerializeToString())
        return reason_name(decision_of(answer))

    def source(self, name: str) -> dict[str, Any]:
        """Returns how a source stands, as readiness tells it."""
        sources = self.server.readiness()["trust"]["sources"]
        found: dict[str, Any] = next(one for one in sources if one["name"] == name)
        return found

    def metric(self, what: str, /, **labels: str) -> float:
        """Adds up a metric of the sources."""
        return sum(
            value
            for sample, pairs, value in self.server.samples()
            if sample == f"authz_trust_source_{what}" and labels.items() <= pairs.items()
        )


def test_keys_are_fetched_from_a_url_and_by_discovery(
    web: tuple[KeyServer, Path], tmp_path: Path
) -> None:
    """On both lanes; what was found is told."""
    scene = Scene.set_up(tmp_path / "node", *web, QUICK)
    with scene.server:
        for lane in LANES:
            assert scene.asks(lane) == "PERMITTED"
        assert scene.source("corp") | {"age_seconds": 0} == {
            "kind": "issuer",
            "name": "corp",
            "from": scene.web.url(DISCOVERY),
            "keys": 1,
            "age_seconds": 0,
            "stale": False,
            "error": "",
        }
        eventually(lambda: scene.metric("refresh_total", name="corp", result="unchanged") > 0)
        assert scene.metric("refresh_total", name="corp", result="updated") == 1
        assert scene.metric("keys", kind="domain", name=DOMAIN) == 1
        assert scene.metric("usable", kind="issuer", name="corp") == 1
        assert scene.metric("age_seconds", kind="issuer", name="corp") < 10
        assert scene.metric("usable", kind="issuer", name="machines") == 1, "files have them too"
        told = subprocess.run(
            [
                *command(),
                "status",
                "--admin",
                scene.server.place.config["listeners"]["admin"]["address"],
            ],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
        assert "issuer corp: 1 usable, known" in told
        assert f"domain {DOMAIN}: 1 usable, known" in told


def test_a_node_without_its_keys_is_not_ready_and_refuses(
    web: tuple[KeyServer, Path], tmp_path: Path
) -> None:
    """It starts all the same, and is ready as soon as they come."""
    scene = Scene.set_up(tmp_path / "node", *web, QUICK)
    there, scene.web.answers = scene.web.answers, {}
    server = scene.server
    try:
        server.spawn()
        eventually(lambda: server.http("/readyz")[0] == 503)
        eventually(lambda: len(scene.web.asked) > 2)
        assert scene.asks() == "UNTRUSTED_ISSUER"
        problem = "the keys of issuer `corp` were not fetched yet (it answers 404)"
        eventually(lambda: problem in server.readiness()["problems"], what="the answer is told")
        health: Any = health_pb2_grpc.HealthStub(server.channel("main"))
        request = health_pb2.HealthCheckRequest()
        assert (
            health.Check(request, timeout=30).status == health_pb2.HealthCheckResponse.NOT_SERVING
        )
        assert scene.metric("usable", name="corp") == 0

        scene.web.answers = there

        eventually(lambda: server.http("/readyz")[0] == 200)
        serving = health_pb2.HealthCheckResponse.SERVING
        eventually(lambda: health.Check(request, timeout=30).status == serving, what="health")
        assert scene.asks() == "PERMITTED"
    finally:
        server.close()


def test_a_bad_document_leaves_the_last_good_one_and_an_empty_one_ends_the_domain(
    web: tuple[KeyServer, Path], tmp_path: Path
) -> None:
    """An empty one counts whatever it says of its sequence; none leads back past it."""
    scene = Scene.set_up(tmp_path / "node", *web, QUICK)
    scene.publish(sequence=7)
    with scene.server:
        private = {**Key.make("x").jwk("jwt-svid"), "d": "AAAA"}
        refused = 0.0
        for body in (
            "{",
            "{}",
            json.dumps({"keys": [private], "spiffe_sequence": 8}),
        ):
            scene.web.answers["/bundle"] = Answer(body)
            eventually(lambda: _bad(scene) > refused, what=body)  # noqa: B023 - asked at once
            refused = _bad(scene)
            assert scene.asks() == "PERMITTED", body
        assert scene.server.readiness()["ready"]
        assert any(
            f"trust domain `{DOMAIN}` were not refreshed" in problem
            for problem in scene.server.readiness()["problems"]
        )

        scene.web.answers["/bundle"] = Answer(json.dumps({"keys": []}))

        eventually(lambda: scene.asks() == "UNTRUSTED_ISSUER")
        assert scene.metric("usable", name=DOMAIN) == 0
        refused = _bad(scene)
        scene.publish(sequence=6)
        eventually(lambda: _bad(scene) > refused)
        assert scene.asks() == "UNTRUSTED_ISSUER"
        scene.publish(sequence=9)
        eventually(lambda: scene.asks() == "PERMITTED")


def _bad(scene: Scene) -> float:
    refused = scene.metric("refresh_total", name=DOMAIN, result="refused")
    return refused + scene.metric("refresh_total", name=DOMAIN, result="failed")


def test_keys_that_cannot_be_fetched_again_are_dropped(
    web: tuple[KeyServer, Path], tmp_path: Path
) -> None:
    """Then every credential of that source is refused, and of no other; a reload does not bring them back."""
    scene = Scene.set_up(tmp_path / "node", *web, {**QUICK, "max_staleness": "6s"})
    with scene.server:
        assert scene.asks() == "PERMITTED"
        scene.web.answers["/bundle"] = Answer(status=503)

        eventually(lambda: scene.asks() == "UNTRUSTED_ISSUER")

        def stands() -> tuple[Any, ...]:
            found = scene.source(DOMAIN)
            return found["stale"], found["keys"], found["error"]

        eventually(lambda: stands() == (True, 0, "it answers 503"), what="it is told")
        assert not scene.source("corp")["stale"]
        assert scene.metric("usable", name=DOMAIN) == 0
        assert scene.metric("usable", name="corp") == 1
        dropped = "keys are too old and were dropped"
        eventually(lambda: dropped in scene.server.log.read_text(), what="it is logged")
        readiness = scene.server.readiness()
        assert readiness["ready"], "it still answers for the others"
        assert (
            f"the keys of trust domain `{DOMAIN}` are too old and were dropped (it answers 503)"
            in readiness["problems"]
        )
        scene.server.call("admin", "authz.v1.Admin/Reload", b"")
        assert scene.asks() == "UNTRUSTED_ISSUER"
        scene.publish()
        eventually(lambda: scene.asks() == "PERMITTED")


SELDOM = {"min": "1h", "max": "1h", "timeout": "5s", "max_staleness": "24h"}


def test_a_new_key_is_looked_for_when_a_token_names_it(
    web: tuple[KeyServer, Path], tmp_path: Path
) -> None:
    """Long before the next refresh is due; the call that brought it does not wait."""
    scene = Scene.set_up(tmp_path / "node", *web, SELDOM)
    with scene.server:
        assert scene.asks() == "PERMITTED"
        new = Key.make("a-new")
        scene.publish(new, sequence=2)
        token = new.sign(scene.authority.agent_claims(BOT))
        assert scene.asks(token=token) == "UNTRUSTED_ISSUER"
        for lane in LANES:
            eventually(lambda: scene.asks(lane, token) == "PERMITTED")  # noqa: B023
        assert scene.web.asked.count("/bundle") == 2
        assert scene.web.asked.count("/jwks") == 1, "the issuer was not asked"


def test_random_key_ids_ask_the_source_once(web: tuple[KeyServer, Path], tmp_path: Path) -> None:
    """Within a minute, however many come, by whichever lane; a source that hangs holds up no call."""
    scene = Scene.set_up(tmp_path / "node", *web, SELDOM)
    with scene.server:
        assert scene.asks() == "PERMITTED"
        running = scene.web
        running.answers["/bundle"] = Answer(send=lambda _: _hang(running))
        claims = scene.authority.agent_claims(BOT)
        key = Key.make("x")
        until, sent, longest = time.monotonic() + 8, 0, 0.0
        while time.monotonic() < until:
            token = replace(key, kid=f"random-{sent}").sign(claims)
            began = time.monotonic()
            assert scene.asks(LANES[sent % 2], token) == "UNTRUSTED_ISSUER"
            longest = max(longest, time.monotonic() - began)
            sent += 1
        assert scene.asks() == "PERMITTED"
        assert sent > 100
        assert longest < 4, "the time-out of the fetch is 5 s"
        assert running.asked.count("/bundle") == 2, "at the start, and for all of these"
        assert running.asked.count("/jwks") == 1


def test_an_address_that_may_not_be_asked_is_not_asked(
    web: tuple[KeyServer, Path], tmp_path: Path
) -> None:
    """The same node, without the permission."""
    scene = Scene.set_up(tmp_path / "node", *web, QUICK)
    del scene.server.place.config["trust"]["domains"][DOMAIN]["bundle"]["allow_private"]
    scene.server.place.write()
    try:
        scene.server.spawn()
        eventually(lambda: scene.web.asked.count("/jwks") > 0)
        eventually(lambda: scene.metric("refresh_total", name=DOMAIN, result="failed") > 0)
        why = "`allow_private` can permit it"
        eventually(lambda: why in scene.source(DOMAIN)["error"], what="it is told")
        assert "/bundle" not in scene.web.asked
    finally:
        scene.server.close()


def test_a_node_stops_while_a_source_hangs(web: tuple[KeyServer, Path], tmp_path: Path) -> None:
    """Within its grace period, and without an error."""
    scene = Scene.set_up(
        tmp_path / "node", *web, {**QUICK, "timeout": "30s", "max_staleness": "24h"}
    )
    with scene.server:
        running, asked = scene.web, len(scene.web.asked)
        running.answers["/bundle"] = Answer(send=lambda _: _hang(running))
        eventually(lambda: "/bundle" in running.asked[asked:])
        assert scene.server.process is not None
        scene.server.process.terminate()
        assert scene.server.process.wait(25) == 0, "the source hangs for 30 s"
    assert '"level": "error"' not in scene.server.log.read_text()


def _hang(web: KeyServer) -> None:
    web.ended.wait(30)


def test_validation_asks_nobody(web: tuple[KeyServer, Path], tmp_path: Path) -> None:
    """Half a source refuses to start, with the line."""
    scene = Scene.set_up(tmp_path / "node", *web, QUICK)
    scene.server.place.config["trust"]["issuers"]["corp"]["jwks"]["url"] = "http://idp.example/k"
    scene.server.place.write()
    ended = subprocess.run(
        [*command(), "config", "validate", "--config", str(scene.server.place.file)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 3
    assert "their URL is not https" in ended.stderr
    assert scene.web.asked == [], "offline"
