"""What a naive authorizer's answers would do behind the shipped Envoy configuration.

Each test keeps the naive way and asserts that it is dangerous, so that the tests of the real server mean something:
they would fail if it answered like this.
"""

from collections.abc import Iterator
from typing import NoReturn

import grpc
import pytest

from authz.thirdparty.envoy.config.core.v3 import base_pb2
from authz.thirdparty.envoy.service.auth.v3 import external_auth_pb2
from tests.support.envoy import Envoy, ext_authz
from tests.support.naive import NaiveAuthorizer
from tests.support.upstream import Upstream

pytestmark = pytest.mark.envoy


def permit(
    _: external_auth_pb2.CheckRequest, __: grpc.ServicerContext
) -> external_auth_pb2.CheckResponse:
    """A response that nobody filled in."""
    return external_auth_pb2.CheckResponse()


def abort(_: external_auth_pb2.CheckRequest, context: grpc.ServicerContext) -> NoReturn:
    """A denial as an RPC error."""
    context.abort(grpc.StatusCode.PERMISSION_DENIED, "denied")
    raise AssertionError


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    """An upstream."""
    with Upstream() as running:
        yield running


@pytest.fixture(scope="module")
def authorizer() -> Iterator[NaiveAuthorizer]:
    """The naive authorizer."""
    with NaiveAuthorizer(permit) as running:
        yield running


@pytest.fixture(scope="module")
def envoy(
    authorizer: NaiveAuthorizer, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Envoy]:
    """An Envoy on the configuration as shipped."""
    folder = tmp_path_factory.mktemp("envoy")
    with Envoy(folder, authorizer.port, upstream.port, patience=None) as running:
        yield running


@pytest.fixture(scope="module")
def lenient(
    authorizer: NaiveAuthorizer, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Envoy]:
    """An Envoy that somebody told to let requests pass while the authorizer fails."""
    folder = tmp_path_factory.mktemp("lenient")
    allow = lambda config: ext_authz(config).update(failure_mode_allow=True)  # noqa: E731
    with Envoy(folder, authorizer.port, upstream.port, allow, patience=None) as running:
        yield running


def test_an_empty_response_is_a_permit(envoy: Envoy, authorizer: NaiveAuthorizer) -> None:
    """A forgotten status is code 0, which is OK."""
    authorizer.handler = permit
    assert envoy.request("GET", "/x").status == 200


def test_an_rpc_error_is_a_permit_where_failure_mode_allow_is_set(
    lenient: Envoy, envoy: Envoy, authorizer: NaiveAuthorizer
) -> None:
    """A denial must be an OK RPC; as an RPC error it is "the authorizer failed"."""
    authorizer.handler = abort
    assert lenient.request("GET", "/x").status == 200
    assert envoy.request("GET", "/x").status == 503


def test_error_response_is_a_permit_where_failure_mode_allow_is_set(
    lenient: Envoy, authorizer: NaiveAuthorizer
) -> None:
    """So is the `error_response` of newer Envoys, which our own failures therefore never use unasked."""

    def failed(
        _: external_auth_pb2.CheckRequest, __: grpc.ServicerContext
    ) -> external_auth_pb2.CheckResponse:
        answer = external_auth_pb2.CheckResponse()
        answer.status.code = 14
        answer.error_response.status.code = 503  # type: ignore[assignment]
        return answer

    authorizer.handler = failed
    assert lenient.request("GET", "/x").status == 200


def test_an_identity_header_is_appended_where_the_action_says_so(
    envoy: Envoy, authorizer: NaiveAuthorizer
) -> None:
    """The upstream then sees the caller's own claim first."""

    def appended(
        _: external_auth_pb2.CheckRequest, __: grpc.ServicerContext
    ) -> external_auth_pb2.CheckResponse:
        answer = external_auth_pb2.CheckResponse()
        option = answer.ok_response.headers.add()
        option.header.key, option.header.value = "x-authz-agent", "real"
        option.append.value = True
        option.append_action = base_pb2.HeaderValueOption.APPEND_IF_EXISTS_OR_ADD
        return answer

    authorizer.handler = appended
    answer = envoy.request("GET", "/x", [("x-authz-agent", "spoofed")])
    assert answer.echo["x-authz-agent"][0].startswith("spoofed")


def test_the_configuration_hands_over_raw_headers(
    envoy: Envoy, authorizer: NaiveAuthorizer
) -> None:
    """Repeated headers stay apart, and bytes stay bytes."""
    authorizer.handler = permit
    authorizer.requests.clear()
    envoy.request("GET", "/a?b=%2F", [("x-twice", "1"), ("x-twice", "2"), ("x-byte", "\xff")])
    (request,) = authorizer.requests
    http = request.attributes.request.http
    assert not http.headers
    values = [(header.key, header.raw_value) for header in http.header_map.headers]
    assert [value for key, value in values if key == "x-twice"] == [b"1", b"2"]
    assert [value for key, value in values if key == "x-byte"] == [b"\xff"]
    assert http.path == "/a?b=%2F"


@pytest.mark.parametrize(
    ("key", "value"), [(":path", "/admin"), ("x-role", "root"), ("host", "other.example")]
)
def test_the_configuration_lets_nobody_reroute_a_request(
    envoy: Envoy, authorizer: NaiveAuthorizer, key: str, value: str
) -> None:
    """A header change other than ours ends the request, even if the authorizer sent it."""

    def rerouted(
        _: external_auth_pb2.CheckRequest, __: grpc.ServicerContext
    ) -> external_auth_pb2.CheckResponse:
        answer = external_auth_pb2.CheckResponse()
        for name, said in ((key, value), ("x-authz-agent", "a")):
            option = answer.ok_response.headers.add()
            option.header.key, option.header.value = name, said
        return answer

    authorizer.handler = rerouted
    assert envoy.request("GET", "/x").status == 500


def test_the_configuration_lets_headers_of_ours_through(
    envoy: Envoy, authorizer: NaiveAuthorizer
) -> None:
    """Of what is to be removed, only the credentials go."""

    def ours(
        _: external_auth_pb2.CheckRequest, __: grpc.ServicerContext
    ) -> external_auth_pb2.CheckResponse:
        answer = external_auth_pb2.CheckResponse()
        option = answer.ok_response.headers.add()
        option.header.key, option.header.value = "x-authz-agent", "a"
        answer.ok_response.headers_to_remove.append("authorization")
        return answer

    authorizer.handler = ours
    answer = envoy.request("GET", "/x", [("authorization", "Bearer t"), ("x-kept", "1")])
    assert answer.status == 200
    assert answer.echo["x-authz-agent"] == ["a"]
    assert "authorization" not in answer.echo
    assert answer.echo["x-kept"] == ["1"]


def test_a_body_over_the_limit_never_reaches_the_authorizer(
    envoy: Envoy, authorizer: NaiveAuthorizer
) -> None:
    """It is answered 413."""
    authorizer.handler = permit
    authorizer.requests.clear()
    assert envoy.request("POST", "/x", body=b"x" * 70_000).status == 413
    assert not authorizer.requests
