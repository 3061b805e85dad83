"""A standing secret through a real Envoy: the upstream sees its key, and nobody else ever does."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from authz_client.v1 import decision_pb2
from tests.support.envoy import Answer, Envoy, ext_authz
from tests.support.leaks import files_under, leaks
from tests.support.minting import Authority
from tests.support.people import People, search
from tests.support.server import Server, command, layout
from tests.support.tap import Tap
from tests.support.upstream import Upstream
from tests.support.waiting import eventually

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(120)]

#: Each sign that some encoding writes in another way.
KEY = 'sk-l1ve/9f+Q"==%41:x&a b~'
NEXT_KEY = "n3xt-k3y-0f-the-crm/+=="
HEADER = "x-api-key"
LANES = ("main", "main-fast")


@dataclass
class Site:
    """A server with a standing secret, and an Envoy before each lane whose clients are overheard."""

    server: Server
    envoys: dict[str, Envoy]
    taps: dict[str, Tap]
    secret: Path

    def write(self, key: str | None) -> None:
        """Writes the standing secret as a careful tool does: beside it, then in its place."""
        if key is None:
            self.secret.unlink()
            return
        beside = self.secret.with_suffix(".new")
        beside.touch(0o600)
        beside.write_text(key + "\n")
        beside.replace(self.secret)

    def get(
        self, lane: str, people: People, path: str = "/customers?q=x", *more: tuple[str, str]
    ) -> Answer:
        """Sends one request of the bot for Alice."""
        headers = [
            ("authorization", f"Bearer {people.bot}"),
            ("authz-subject", people.alice),
            *more,
        ]
        return self.envoys[lane].request("GET", path, headers)


def may_set_key(config: dict[str, Any]) -> None:
    """As the shipped configuration says for static secrets."""
    ext_authz(config)["decoder_header_mutation_rules"] = {"disallow_is_error": True}


def may_set_only_key(config: dict[str, Any]) -> None:
    """Rules that list the key and not the headers that may not stand beside it."""
    allowed = ext_authz(config)["decoder_header_mutation_rules"]["allow_expression"]
    allowed["regex"] = allowed["regex"].removesuffix(")$") + "|x[-_]api[-_]key)$"


def takes_underscores(config: dict[str, Any]) -> None:
    """As a proxy that lets other spellings of a header through."""
    (chain,) = config["static_resources"]["listeners"][0]["filter_chains"]
    options = chain["filters"][0]["typed_config"]["common_http_protocol_options"]
    options["headers_with_underscores_action"] = "ALLOW"


@pytest.fixture
def people(authority: Authority) -> People:
    """Good credentials."""
    return People.of(authority)


@pytest.fixture
def site(authority: Authority, upstream: Upstream, tmp_path: Path) -> Iterator[Site]:
    """Starts them; each test has its own, since each may change the secret."""
    secret = tmp_path / "secrets" / "key"
    secret.parent.mkdir(mode=0o700)
    secret.touch(0o600)
    secret.write_text(KEY + "\n")
    changes = {
        "bundle": {"watch": True},
        "credentials": {
            "issuer": "https://authz.example",
            "static_secrets": {
                "legacy": {"systems": ["crm"], "header": HEADER, "secret_file": str(secret)}
            },
        },
    }
    with ExitStack() as stack:
        server = stack.enter_context(Server(layout(tmp_path / "node", authority, "desk", changes)))
        envoys, taps = {}, {}
        for lane in LANES:
            envoy = Envoy(
                tmp_path / lane, server.port(lane), upstream.port, may_set_key, takes_underscores
            )
            envoys[lane] = stack.enter_context(envoy)
            taps[lane] = stack.enter_context(Tap(envoy.port))
            envoy.port = taps[lane].port
        yield Site(server, envoys, taps, secret)


@pytest.mark.parametrize("lane", LANES)
def test_the_upstream_sees_its_key_whatever_the_agent_sent(
    site: Site, people: People, upstream: Upstream, lane: str
) -> None:
    """Under every spelling that a server takes for the same header."""
    before = len(upstream.seen)
    forged = [(HEADER, "agents"), (HEADER, "twice"), ("x_api_key", "agents")]
    answer = site.get(lane, people, "/customers?q=x", *forged)
    assert answer.status == 200
    (seen,) = upstream.seen[before:]
    assert seen.header(HEADER) == [KEY]
    assert [name for name, _ in seen.headers if name.lower().replace("_", "-") == HEADER] == [
        HEADER
    ]


def test_a_proxy_that_may_not_set_the_key_forwards_nothing(
    site: Site, people: People, upstream: Upstream, tmp_path: Path
) -> None:
    """As shipped: else the agent's own header would pass in its place."""
    before = len(upstream.seen)
    with Envoy(tmp_path / "shipped", site.server.port("main"), upstream.port) as envoy:
        site.envoys["shipped"] = envoy
        assert site.get("shipped", people, "/customers?q=x", (HEADER, "agents")).status == 500
        del site.envoys["shipped"]
    assert len(upstream.seen) == before


#: Headers that would give the holder of the key another identity, tenant or mode.
UNDECLARED = (
    ("sudo", "root"),
    ("impersonate-user", "admin"),
    ("impersonate-group", "system:masters"),
    ("x-amz-target", "DynamoDB_20120810.DeleteTable"),
    ("content-profile", "admin"),
    ("accept-profile", "admin"),
    ("prefer", "resolution=merge-duplicates"),
    ("cookie", "tenant=other"),
    ("x_shard", "other"),
    ("sudo", "twice"),
)
STANDARD = (
    ("accept", "application/json"),
    ("accept-language", "de"),
    ("user-agent", "agent/1"),
    ("if-none-match", '"7"'),
    ("range", "bytes=0-9"),
    ("cache-control", "no-cache"),
    ("idempotency-key", "k-1"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
)


@pytest.mark.parametrize("lane", LANES)
def test_what_the_bundle_does_not_declare_does_not_stand_beside_the_key(
    site: Site, people: People, upstream: Upstream, lane: str
) -> None:
    """The agent does not hold the key, so it does not choose what the key's holder is or does."""
    before = len(upstream.seen)
    assert site.get(lane, people, "/customers?q=x", *UNDECLARED, *STANDARD).status == 200
    (seen,) = upstream.seen[before:]
    assert seen.header(HEADER) == [KEY]
    for name, _ in UNDECLARED:
        assert seen.header(name) == [], name
    for name, value in STANDARD:
        assert seen.header(name) == [value], name
    assert len(seen.header("host")) == 1
    assert len(seen.header("x-request-id")) == 1
    assert len(seen.header("x-forwarded-for")) == 1


def test_a_proxy_that_may_not_remove_a_header_forwards_nothing(
    site: Site, people: People, upstream: Upstream, tmp_path: Path
) -> None:
    """Else it would stand beside the key."""
    before = len(upstream.seen)
    port = site.server.port("main")
    with Envoy(tmp_path / "narrow", port, upstream.port, may_set_only_key) as envoy:
        site.envoys["narrow"] = envoy
        assert site.get("narrow", people, "/customers?q=x", ("sudo", "root")).status == 500
        assert len(upstream.seen) == before
        assert site.get("narrow", people, "/customers?q=x", *STANDARD).status == 200
        del site.envoys["narrow"]
    assert upstream.seen[-1].header(HEADER) == [KEY]


@pytest.mark.parametrize("lane", LANES)
def test_other_systems_get_what_the_agent_sent(
    site: Site, people: People, upstream: Upstream, lane: str
) -> None:
    """That header means nothing to us there."""
    before = len(upstream.seen)
    headers = [
        ("authorization", f"Bearer {people.bot}"),
        ("authz-subject", people.alice),
        ("host", "mail.example"),
        ("content-type", "application/json"),
        (HEADER, "agents"),
    ]
    body = b'{"to": ["bob@corp.example"], "body": "hi"}'
    assert site.envoys[lane].request("POST", "/messages", headers, body).status == 200
    (seen,) = upstream.seen[before:]
    assert seen.header(HEADER) == ["agents"]


@pytest.mark.parametrize("lane", LANES)
def test_a_secret_that_is_gone_ends_permits_until_it_is_back(
    site: Site, people: People, upstream: Upstream, lane: str
) -> None:
    """A failure of ours: 503, and the upstream is not reached. Denials stay what they are."""
    assert site.get(lane, people).status == 200
    site.write(None)
    eventually(lambda: site.get(lane, people).status == 503, what="permits end")
    before = len(upstream.seen)
    answer = site.get(lane, people)
    assert b'"UNAVAILABLE"' in answer.body
    assert site.get(lane, people, "/nowhere").status == 403
    assert len(upstream.seen) == before
    readiness = site.server.readiness()
    assert any(
        "the static secret `legacy` cannot be read" in said for said in readiness["problems"]
    )
    assert readiness["ready"]
    assert site.server.metric("authz_static_secret_readable", static_secret="legacy") == 0
    # Whoever asks over our own API forwards nothing, and is answered.
    reply = site.server.call("main", "authz.v1.Authorizer/Check", search(people.bot, people.alice))
    decision = decision_pb2.CheckResponse.FromString(reply).decision
    assert decision.outcome == decision_pb2.OUTCOME_PERMIT
    site.write(NEXT_KEY)
    eventually(lambda: site.get(lane, people).status == 200, what="permits are back")
    assert upstream.seen[-1].header(HEADER) == [NEXT_KEY]


def test_a_secret_that_changes_is_the_next_requests(
    site: Site, people: People, upstream: Upstream
) -> None:
    """Without a restart, on both lanes; a signal does as well."""
    site.write(NEXT_KEY)
    os.kill(site.server.pid, signal.SIGHUP)
    for lane in LANES:

        def sees(lane: str = lane) -> bool:
            assert site.get(lane, people).status == 200
            return upstream.seen[-1].header(HEADER) == [NEXT_KEY]

        eventually(sees, what="the next key")


def test_the_secret_is_nowhere_else(
    site: Site, people: People, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in what any agent hears, nor in any log, audit, store, metric, status or printed configuration."""
    # What an upstream answers is its own affair.
    monkeypatch.setattr(upstream, "echoes", False)
    for lane in LANES:
        assert site.get(lane, people).status == 200
        assert upstream.seen[-1].header(HEADER) == [KEY]
        assert site.get(lane, people, "/nowhere").status == 403
        assert site.get(lane, people, "/customers?q=x", ("authz-task", "t-1")).status >= 400
    answered = site.server.call(
        "main", "authz.v1.Authorizer/Check", search(people.bot, people.alice)
    )
    printed = subprocess.run(
        [*command(), "config", "print", "--config", str(site.server.place.file)],
        capture_output=True,
        check=True,
        timeout=30,
    )
    assert b"secret_file" in printed.stdout
    places = [
        ("Check", answered),
        ("config print", printed.stdout + printed.stderr),
        *((page, site.server.http(page)[1].encode()) for page in ("/metrics", "/readyz")),
    ]
    site.write(None)
    os.kill(site.server.pid, signal.SIGHUP)
    eventually(lambda: site.get("main", people).status == 503, what="permits end")
    for lane, envoy in site.envoys.items():
        places += [(f"Envoy {lane}", envoy.ask(page).encode()) for page in ("/stats", "/clusters")]
        envoy.close()
    site.server.close()
    heard = [(f"agents {lane}", tap.heard) for lane, tap in site.taps.items()]
    assert all(b"HTTP/1.1 200" in data for _, data in heard)
    logs = [envoy.folder for envoy in site.envoys.values()]
    files = list(files_under(site.server.place.folder, *logs))
    for part in ("audit.jsonl", "/state/", "server.log", "access.log"):
        assert any(part in name and data for name, data in files), part
    assert leaks(KEY, [*places, *heard, *files]) == []
