"""Spans of decisions, at a real OTLP receiver."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1 import trace_pb2

from authz.thirdparty.envoy.service.auth.v3 import external_auth_pb2
from authz_client.v1 import admin_pb2
from tests.support.collector import Collector, attributes
from tests.support.fixtures import Servers
from tests.support.minting import Authority
from tests.support.people import People, envoy_search, search
from tests.support.server import Server, layout
from tests.support.surfaces import CHECK, ENVOY, LANES, decision_of
from tests.support.waiting import eventually, free_port

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
OTHER = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture(scope="module")
def people(authority: Authority) -> People:
    """Good credentials."""
    return People.of(authority)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """A receiver."""
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def server(
    collector: Collector, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server that sends it spans."""
    running = Server(layout(tmp_path_factory.mktemp("traced"), authority, "desk"))
    try:
        running.spawn(
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            OTEL_RESOURCE_ATTRIBUTES="deployment.environment=test",
        )
        eventually(lambda: running.http("/readyz")[0] == 200)
        yield running
    finally:
        running.close()


def span_of(collector: Collector, decision_id: str) -> trace_pb2.Span:
    """Waits for the span of a decision."""

    def look() -> trace_pb2.Span | None:
        wanted = ("authz.decision_id", decision_id)
        return next((span for span in collector.spans if wanted in attributes(span).items()), None)

    found = eventually(look, what=f"span of {decision_id}")
    assert found is not None
    return found


@pytest.mark.parametrize("lane", LANES)
def test_span_of_a_check(collector: Collector, server: Server, people: People, lane: str) -> None:
    """It is a child of the caller's, says what was decided, and is the one that the record names."""
    answer = server.call(
        "main" + lane,
        CHECK,
        search(people.bot, people.alice),
        metadata=(("traceparent", f"00-{TRACE}-{SPAN}-01"), ("tracestate", "vendor=value")),
    )
    decision = decision_of(answer)
    span = span_of(collector, decision.decision_id)
    assert span.name == "authz.v1.Authorizer/Check"
    assert span.kind == trace_pb2.Span.SPAN_KIND_SERVER
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, SPAN)
    assert span.trace_state == "vendor=value"
    assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 5e9
    assert abs(span.end_time_unix_nano / 1e9 - time.time()) < 60
    said = attributes(span)
    assert said["authz.decision"] == "PERMIT"
    assert said["authz.reason_code"] == "PERMITTED"
    assert said["authz.operation"] == "crm.search"
    assert said["authz.system"] == "crm"
    assert said["authz.bundle.revision"] == decision.bundle_revision
    assert said["authz.listener"] == "main" + lane
    assert int(said["authz.verify_ns"]) > 0
    record = server.record(decision.decision_id)
    assert (record["trace_id"], record["span_id"]) == (TRACE, span.span_id.hex())
    assert not [value for value in said.values() if people.bot[:24] in value or "alice" in value]
    assert collector.resources[0]["service.name"] == "authz"
    assert collector.resources[0]["deployment.environment"] == "test"


@pytest.mark.parametrize("lane", LANES)
def test_trace_of_a_request_behind_envoy(
    collector: Collector, server: Server, people: People, lane: str
) -> None:
    """The request's own header counts, and the proxy's span, where it made one, counts more."""
    request = external_auth_pb2.CheckRequest.FromString(envoy_search(people.idle))
    headers = request.attributes.request.http.headers
    headers["traceparent"] = f"00-{OTHER}-{SPAN}-01"
    near = (("traceparent", f"00-{TRACE}-{SPAN}-01"),)
    malformed = (("traceparent", f"00-{TRACE}-zz-01"),)
    for metadata, wanted in (((), OTHER), (near, TRACE), (malformed, OTHER)):
        answer = server.call("main" + lane, ENVOY, request.SerializeToString(), metadata=metadata)
        fields = external_auth_pb2.CheckResponse.FromString(answer).dynamic_metadata.fields
        decision_id = fields["decision_id"].string_value
        span = span_of(collector, decision_id)
        assert span.name == "envoy.service.auth.v3.Authorization/Check"
        assert span.trace_id.hex() == wanted
        said = attributes(span)
        assert (said["authz.decision"], said["authz.reason_code"]) == ("DENY", "NOT_PERMITTED")
        # A denial is an answer, no error.
        assert span.status.code == trace_pb2.Status.STATUS_CODE_UNSET
        assert server.record(decision_id)["trace_id"] == wanted


@pytest.mark.parametrize("lane", LANES)
def test_without_a_caller_s_trace_one_begins(
    collector: Collector, server: Server, people: People, lane: str
) -> None:
    """Also where it cannot be read; and what the caller does not sample is not sent."""
    for metadata in ((), (("traceparent", "00-zz"),)):
        answer = server.call("main" + lane, CHECK, search(people.bot), metadata=metadata)
        decision_id = decision_of(answer).decision_id
        span = span_of(collector, decision_id)
        assert span.parent_span_id == b""
        assert span.trace_id.hex() != TRACE
        assert server.record(decision_id)["trace_id"] == span.trace_id.hex()
    unsampled = (("traceparent", f"00-{TRACE}-{SPAN}-00"),)
    answer = server.call("main" + lane, CHECK, search(people.bot), metadata=unsampled)
    left_out = decision_of(answer).decision_id
    # Spans leave in order: once a later one is there, an earlier one would be too.
    later = decision_of(server.call("main" + lane, CHECK, search(people.bot))).decision_id
    span_of(collector, later)
    ids = {attributes(span)["authz.decision_id"] for span in collector.spans}
    assert left_out not in ids
    record = server.record(left_out)
    assert (record["trace_id"], record["span_id"]) == (TRACE, SPAN)


def test_log_lines_carry_the_trace(server: Server) -> None:
    """What a call makes the server say is found by its trace."""
    server.call(
        "admin",
        "authz.v1.Admin/Reload",
        admin_pb2.ReloadRequest().SerializeToString(),
        metadata=(("traceparent", f"00-{TRACE}-{SPAN}-01"),),
    )
    bad = server.place.folder / "bundle" / "bad.yaml"
    bad.write_text("what: is this\n")
    try:
        server.call(
            "admin",
            "authz.v1.Admin/Reload",
            admin_pb2.ReloadRequest().SerializeToString(),
            metadata=(("traceparent", f"00-{OTHER}-{SPAN}-01"),),
        )
    finally:
        bad.unlink()
    refused = [line for line in server.log.read_text().splitlines() if "reload refused" in line]
    assert len(refused) == 1
    assert f'"trace_id": "{OTHER}"' in refused[0]


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("kind", ["dead", "stalled"])
def test_a_collector_that_does_not_answer_slows_nothing(
    authority: Authority, people: People, tmp_path: Path, lane: str, kind: str
) -> None:
    """Every call is answered at once; the spans that found no room are counted; the server stops in time."""
    with Collector(stalls=True) as stalled:
        port = stalled.port if kind == "stalled" else free_port()
        server = Server(layout(tmp_path, authority, "desk"))
        try:
            server.spawn(
                OTEL_TRACES_EXPORTER="otlp",
                OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
                OTEL_BSP_MAX_QUEUE_SIZE="20",
            )
            eventually(lambda: server.http("/readyz")[0] == 200)
            slowest = 0.0
            for _ in range(100):
                started = time.monotonic()
                answer = server.call("main" + lane, CHECK, search(people.bot, people.alice))
                slowest = max(slowest, time.monotonic() - started)
                assert decision_of(answer).outcome == 1
            assert slowest < 5, "the collector never answers"
            eventually(lambda: server.metric("authz_trace_spans_dropped_total") > 0)
            assert server.metric("authz_trace_spans_exported_total") == 0
            started = time.monotonic()
            assert server.process is not None
            server.process.terminate()
            server.process.wait(60)
            assert server.process.returncode == 0
            assert time.monotonic() - started < 12
        finally:
            server.close()


def test_without_variables_there_are_no_spans(servers: Servers, people: People) -> None:
    """And nothing that counts them."""
    server = servers.of("desk")
    assert decision_of(server.call("main", CHECK, search(people.bot))).outcome == 1
    assert not [name for name, _, _ in server.samples() if "spans_exported" in name]
