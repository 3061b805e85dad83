"""What a real Envoy's access log tells of what it was permitted, with the configuration that is shipped."""

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from google.rpc import error_details_pb2, status_pb2

from authz.thirdparty.envoy.data.accesslog.v3 import accesslog_pb2
from authz.thirdparty.envoy.service.accesslog.v3 import als_pb2, als_pb2_grpc
from tests.support.envoy import MCP_TEMPLATE, TEMPLATE, Answer, Envoy, access_log
from tests.support.minting import Authority
from tests.support.server import Server, code_of, layout
from tests.support.upstream import Upstream
from tests.support.waiting import eventually, free_port

pytestmark = pytest.mark.envoy

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "ext-authz.md"
BUNDLE = {
    "bundle.yaml": "{name: till, tasks: required, implicit_tasks: {agents: [workers], template: till, tier_cap: standard}}",
    "facts.yaml": """
agents: {workers: ["spiffe://a.example/ns/support/sa/*"]}
catalog:
  shop:
    kind: http
    reports: access_log
    operations:
      look: {}
      pay: {input: {type: object, properties: {amount: {type: integer}}, required: [amount]}}
      ship: {}
classify:
  - {match: shop.look, effects: [read], tier: low}
  - {match: shop.pay, effects: [write], tier: low}
  - {match: shop.ship, effects: [write], tier: low}
sequences:
  look-first: {require: shop.look, before: shop.ship}
budgets:
  money: {sum: /amount, of: [shop.pay], most: 100}
templates:
  till: {purpose: sell, deadline: 1h, tier_cap: standard, scope: [{system: shop}]}
routes:
  - {method: GET, path: /look, operation: shop.look}
  - {method: POST, path: /ship, operation: shop.ship}
  - {method: POST, path: /pay, operation: shop.pay, arguments: {amount: {json: /amount}}}
""",
    "policies/till.cedar": """
@id("may") @reason("workers sell") permit(principal in Role::"workers", action, resource);
@id("first") @reason("look first") forbid(principal, action == Action::"shop.ship", resource)
when { context.sequences.contains(Sequence::"look-first") };
""",
}
GRACE = 20
LISTENERS = {
    "gate": "access_log",
    "other": "access_log",
    "mute": None,
}


def mute(config: dict[str, Any]) -> None:
    """Takes out of Envoy's configuration that it tells us."""
    loggers = access_log(config)
    loggers[:] = [one for one in loggers if one["name"] != "envoy.access_loggers.http_grpc"]


@pytest.mark.parametrize("shipped", [TEMPLATE, MCP_TEMPLATE], ids=lambda path: path.name)
def test_the_reference_prints_what_is_shipped(shipped: Path) -> None:
    """Whoever has another configuration copies what stands there."""
    found = re.search(
        r"^```yaml\n(access_log:.*?)^```$", REFERENCE.read_text(), re.MULTILINE | re.DOTALL
    )
    assert found is not None
    (printed,) = yaml.safe_load(found[1])["access_log"]
    assert printed == access_log(yaml.safe_load(shipped.read_text()))[-1]


class Till:
    """A server, an upstream, and an Envoy before it that logs what came."""

    def __init__(self, server: Server, authority: Authority, folder: Path) -> None:
        self.server = server
        self.upstream = Upstream()
        self._authority = authority
        self._folder = folder
        self._workers = 0

    def worker(self) -> str:
        """Returns the token of an agent of its own, and so of a task of its own."""
        self._workers += 1
        return self._authority.agent(f"spiffe://a.example/ns/support/sa/w{self._workers}")

    @contextmanager
    def envoy(self, listener: str = "gate", port: int | None = None) -> Iterator[Envoy]:
        """Starts an Envoy that asks by a listener."""
        socket = Path(self.server.address(listener).removeprefix("unix:"))
        upstream = port if port is not None else self.upstream.port
        folder = self._folder / f"envoy-{listener}-{upstream}"
        with Envoy(folder, socket, upstream) as envoy:
            yield envoy

    def entries(self, **labels: str) -> float:
        """Returns how many entries were seen."""
        return self.server.metric("authz_access_log_entries_total", **labels)

    def comes(self, count: float, **labels: str) -> None:
        """Waits until so many more entries were seen than before the call that this follows."""
        eventually(lambda: self.entries(**labels) == count, what=f"{count} entries {labels}")

    def result(self, decision: str) -> str:
        """Waits until the audit says what was told of a decision, and returns that."""

        def told() -> str:
            reports = (record["input"].get("report", {}) for record in self.server.records())
            results = (one["result"] for one in reports if one.get("decision_id") == decision)
            return next(results, "")

        return eventually(told, what=f"a report of {decision}")


@pytest.fixture(scope="module")
def till(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Till]:
    """One of each."""
    folder = tmp_path_factory.mktemp("till")
    with ExitStack() as stack:
        server = stack.enter_context(Server(laid_out(folder, authority)))
        made = Till(server, authority, folder)
        stack.enter_context(made.upstream)
        yield made


def laid_out(folder: Path, authority: Authority, **limits: int) -> Any:
    """Lays out a server with one unix socket for each enforcer."""
    for name, text in BUNDLE.items():
        path = folder / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    place = layout(folder / "server", authority, folder / "source")
    sockets = {name: f"unix://{place.sockets / name}.sock" for name in LISTENERS}
    place.config["listeners"] |= {name: {"address": address} for name, address in sockets.items()}
    place.config["enforcers"] = [
        {"name": name, "listener": name, "asks": ["system:*"]}
        | ({"reports": reports} if reports is not None else {})
        for name, reports in LISTENERS.items()
    ]
    place.config |= {"limits": limits, "shutdown_grace_period": f"{GRACE}s"}
    place.write()
    return place


def bearer(token: str) -> list[tuple[str, str]]:
    """Returns the headers of a caller."""
    return [("authorization", f"Bearer {token}"), ("content-type", "application/json")]


def pay(envoy: Envoy, token: str, amount: int) -> Answer:
    """Pays."""
    body = json.dumps({"amount": amount}).encode()
    return envoy.request("POST", "/pay", bearer(token), body)


def test_what_the_upstream_did_is_done(till: Till) -> None:
    """What is required before something else counts once the upstream has answered, and not before."""
    token = till.worker()
    before = till.entries(result="settled")
    with till.envoy() as envoy:
        assert envoy.request("POST", "/ship", bearer(token)).status == 403
        looked = envoy.request("GET", "/look", bearer(token))
        assert looked.status == 200
        till.comes(before + 1, result="settled")
        assert envoy.request("POST", "/ship", bearer(token)).status == 200
    assert till.result(looked.echo["x-authz-decision-id"][0]) == "OK"


def test_what_the_upstream_refused_is_not_done(till: Till) -> None:
    """An error of the upstream is no look, and what may have been paid is spent."""
    token = till.worker()
    before = till.entries(result="settled")
    till.upstream.status = 500
    with till.envoy() as envoy:
        try:
            looked = envoy.request("GET", "/look", bearer(token))
            assert looked.status == 500
            assert pay(envoy, token, 100).status == 500
            till.comes(before + 2, result="settled")
        finally:
            till.upstream.status = 200
        assert till.result(looked.echo["x-authz-decision-id"][0]) == "FAILED"
        assert envoy.request("POST", "/ship", bearer(token)).status == 403
        assert pay(envoy, token, 1).status == 403


def test_what_was_never_sent_is_given_back(till: Till) -> None:
    """Nobody listens where the upstream should be: the whole budget is there again."""
    token = till.worker()
    before = till.entries(result="settled")
    with till.envoy(port=free_port()) as dead:
        assert pay(dead, token, 100).status == 503
        till.comes(before + 1, result="settled")
        assert pay(dead, token, 100).status == 503
        till.comes(before + 2, result="settled")
    with till.envoy() as envoy:
        assert pay(envoy, token, 100).status == 200
        assert pay(envoy, token, 1).status == 403


def test_a_proxy_that_may_not_is_not_heard(till: Till) -> None:
    """Its log is refused, so what it was permitted stays spent."""
    token = till.worker()
    before = till.entries()

    def refused() -> float:
        labels = {"surface": "access_log", "reason_code": "ENFORCER_REFUSED"}
        return till.server.metric("authz_decisions_total", **labels)

    refusals = refused()
    with till.envoy("mute", free_port()) as mute:
        assert pay(mute, token, 100).status == 503
        eventually(lambda: refused() > refusals, what="its log is refused")
        assert pay(mute, token, 1).status == 403
    assert till.entries() == before


# --- what no Envoy sends


def stub(server: Server, listener: str) -> als_pb2_grpc.AccessLogServiceStub:
    """Returns a client of the service."""
    return als_pb2_grpc.AccessLogServiceStub(server.channel(listener))


def never_sent(decision: str) -> als_pb2.StreamAccessLogsMessage:
    """Returns the entry of a request that found no connection."""
    entry = accesslog_pb2.HTTPAccessLogEntry()
    ours = entry.common_properties.metadata.filter_metadata["envoy.filters.http.ext_authz"]
    ours["decision_id"] = decision
    entry.common_properties.response_flags.upstream_connection_failure = True
    entry.response.response_code.value = 503
    entry.response.response_code_details = "upstream_reset_before_response_started"
    message = als_pb2.StreamAccessLogsMessage()
    message.http_logs.log_entry.append(entry)
    return message


def permit_of(till: Till, token: str) -> str:
    """Pays all by the gate, and returns the decision before anybody told what came of it."""
    with Envoy(
        till.server.place.folder / "silent",
        Path(till.server.address("gate").removeprefix("unix:")),
        till.upstream.port,
        mute,
    ) as silent:
        answer = pay(silent, token, 100)
        assert answer.status == 200
        return answer.echo["x-authz-decision-id"][0]


def test_an_entry_counts_once_and_of_who_asked(till: Till) -> None:
    """Another enforcer's word settles nothing; the second of the same entry settles nothing more."""
    token = till.worker()
    told = never_sent(permit_of(till, token))
    refused, settled = till.entries(result="refused"), till.entries(result="settled")
    again = till.entries(result="nothing_open")
    stub(till.server, "other").StreamAccessLogs(iter([told]))
    assert till.entries(result="refused") == refused + 1
    assert till.entries(result="settled") == settled
    stub(till.server, "gate").StreamAccessLogs(iter([told, told]))
    stub(till.server, "gate").StreamAccessLogs(iter([told]))
    assert till.entries(result="settled") == settled + 1
    assert till.entries(result="nothing_open") == again + 2
    with till.envoy() as envoy:
        assert pay(envoy, token, 100).status == 200
        assert pay(envoy, token, 1).status == 403


def test_garbage_ends_no_stream(till: Till) -> None:
    """It is counted, and the message after it is taken."""
    token = till.worker()
    told = never_sent(permit_of(till, token)).SerializeToString()
    send: Any = till.server.channel("gate").stream_unary(
        "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"
    )
    malformed, settled = till.entries(result="malformed"), till.entries(result="settled")
    assert send(iter([b"\xff", b"", b"\x12\x04\x0a\x02\xff\xff", bytes(1_048_577), told])) == b""
    assert till.entries(result="malformed") == malformed + 3
    assert till.entries(result="settled") == settled + 1


@pytest.mark.parametrize("listener", ["mute", "none"])
def test_strangers_are_refused_with_the_reason(till: Till, listener: str) -> None:
    """Before they say anything."""
    done = threading.Event()
    with pytest.raises(grpc.RpcError) as caught:
        stub(till.server, listener).StreamAccessLogs(silence(done), timeout=30)
    done.set()
    assert code_of(caught.value) is grpc.StatusCode.PERMISSION_DENIED
    trailers: Any = caught.value
    details = dict(trailers.trailing_metadata())["grpc-status-details-bin"]
    info = error_details_pb2.ErrorInfo()
    assert status_pb2.Status.FromString(details).details[0].Unpack(info)
    assert (info.reason, info.domain) == ("ENFORCER_REFUSED", "authz.dev")


def silence(until: threading.Event) -> Iterator[als_pb2.StreamAccessLogsMessage]:
    """Sends nothing."""
    until.wait(60)
    yield from ()


def test_streams_are_bounded_and_end_with_the_server(authority: Authority, tmp_path: Path) -> None:
    """One more than there may be is refused; decisions go on; a stop waits for none of them."""
    server = Server(laid_out(tmp_path, authority, access_log_streams=2))
    done = threading.Event()
    with server:
        calls = [stub(server, "gate").StreamAccessLogs.future(silence(done)) for _ in range(2)]
        eventually(lambda: server.metric("authz_access_log_streams") == 2, what="both are open")
        with pytest.raises(grpc.RpcError) as caught:
            stub(server, "gate").StreamAccessLogs(iter([]), timeout=30)
        assert code_of(caught.value) is grpc.StatusCode.RESOURCE_EXHAUSTED
        calls[0].cancel()
        eventually(lambda: server.metric("authz_access_log_streams") == 1, what="one has ended")
        stub(server, "gate").StreamAccessLogs(iter([]), timeout=30)
        started = time.monotonic()
        assert server.process is not None
        server.process.terminate()
        server.process.wait(60)
        # The grace period of calls.
        assert time.monotonic() - started < GRACE
        done.set()
