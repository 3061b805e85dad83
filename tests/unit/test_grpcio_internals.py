"""The private functions of grpcio that Authz relies on are those that were reviewed."""

from __future__ import annotations

import hashlib
import inspect

import grpc
import pytest
from grpc import _server

from authz.server.grpc.grpcio_internals import PRIVATE_NAMES, UnaryCall

# SHA-256 of each function's source, in grpcio 1.85.3. A new grpcio whose function differs: read the difference against what
# `grpcio_internals` expects of it, run the tests of the receiver, and write the new digest here.
REVIEWED = {
    "_abort": "a796276e7da700f08d7838a5cea177230db0b31f66d1d639a4419b3ac518799c",
    "_handle_unary_stream": "8d3e34eebcc54a872e916a3856cde2d81356953ff856f4592c08bd1e9281bdfb",
    "_handle_unary_unary": "5ebc5793887886da09285ab1251073e8d6317f3db3655bf4ac2922a4b81190cc",
    "_is_rpc_state_active": "192d4643d41258b615df23d624ed31f9040a29d49f2697585154b67f8836da2e",
    "_receive_message": "1aad7990f9d70f8cd619493fede256157ce34bb76bc178804331a8a64e1392ea",
    "_status": "9f7381df3998be61b7e779120cb6bbeadc32e72354dc8e2f1a8a39de1c579c10",
    "_stream_response_in_pool": "0972d594694f7d8b2bc33d1b77f71e4523948f9403f88aa6cdbf3e92a1aafdca",
    "_unary_request": "35060817d7dd48a3ca5a345274d25a0087d6c7f818fec27b712a9bad599f9aa5",
    "_unary_response_in_pool": "d2ee206deb46ca63b27916114eb50981bfa66bb18f5f1b558bd97dcfeec65910",
}


@pytest.mark.parametrize("name", PRIVATE_NAMES)
def test_a_private_function_of_grpcio_is_the_reviewed_one(name: str) -> None:
    """A change could leave a call unanswered, or hand it over twice."""
    source = inspect.getsource(getattr(_server, name))
    digest = hashlib.sha256(source.encode()).hexdigest()
    assert digest == REVIEWED[name], (
        f"grpcio {grpc.__version__} changed `grpc._server.{name}`: review authz/server/grpc/grpcio_internals.py"
    )


def test_every_private_function_is_reviewed() -> None:
    """The module uses no function of grpcio that it does not list."""
    module = inspect.getmodule(UnaryCall)
    assert module is not None
    source = inspect.getsource(module)
    used = {
        name
        for name in dir(_server)
        if f"_server.{name}" in source and callable(getattr(_server, name))
    }
    assert used <= set(PRIVATE_NAMES) == set(REVIEWED)


def test_a_call_in_another_form_is_not_taken_for_a_unary_one() -> None:
    """Then grpcio's own way remains: the executor runs the call as it stands."""

    def another(_: object) -> None: ...

    def unary_request() -> None: ...

    in_pool = _server._unary_response_in_pool
    assert UnaryCall.of((another, 1, 2, 3, unary_request, None)) is None
    assert UnaryCall.of((in_pool, 1, 2, 3, another, None)) is None
    assert UnaryCall.of((in_pool, 1, 2, 3, unary_request, None)) is not None
