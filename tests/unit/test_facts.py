"""What is read of a call: the address of a caller that may be on another machine, and its certificates."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import pytest

from authz.config import Listener, Tls
from authz.model import CallFacts
from authz.server.grpc.decisions import reader_of

if TYPE_CHECKING:
    import grpc

SHOWN: Mapping[str, Sequence[bytes]] = {
    "x509_pem_cert": [b"leaf"],
    "x509_pem_cert_chain": [b"intermediate"],
}
PLAIN = CallFacts("main", 2.0, "00-1-2-01", "Bearer x", None, "a=b,c=d")


class Call:
    """A call as grpcio shows it, and what has been asked of it."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]]:
        """Give the metadata."""
        return (
            ("authorization", b"Bearer x"),
            ("traceparent", "00-1-2-01"),
            ("tracestate", "a=b"),
            ("tracestate", "c=d"),
        )

    def time_remaining(self) -> float:
        """Give what grpcio gives where there is no deadline."""
        return 2**63 - time.time()

    def peer(self) -> str:
        """Give the address."""
        self.asked.add("peer")
        return "ipv4:10.0.0.7:40000"

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """Give what TLS knows."""
        self.asked.add("certificates")
        return SHOWN


def listener(address: str, *, tls: bool = False, mutual: bool = False) -> Listener:
    """Make the configuration of a listener."""
    files = Tls(cert_file="c", key_file="k", client_ca_file="ca" if mutual else None)
    return Listener(address=address, tls=files if tls else None)


@pytest.mark.parametrize("address", ["unix:/run/authz/main.sock", "127.0.0.1:9191"])
def test_a_caller_on_this_machine_has_no_address(address: str) -> None:
    """Asking grpcio for it costs two changes of threads, for nothing."""
    call = Call()
    assert facts(listener(address), call) == PLAIN
    assert not call.asked


def test_a_caller_over_tls_has_one() -> None:
    """It may be on any machine."""
    call = Call()
    known = facts(listener("0.0.0.0:9191", tls=True), call)
    assert known == PLAIN._replace(peer="ipv4:10.0.0.7:40000")
    assert call.asked == {"peer"}


def test_a_caller_with_a_certificate_shows_it() -> None:
    """As it came: it is verified elsewhere."""
    known = facts(listener("0.0.0.0:9191", tls=True, mutual=True), Call())
    assert known == PLAIN._replace(
        peer="ipv4:10.0.0.7:40000", certificate=b"leaf", intermediates=b"intermediate"
    )


def facts(of: Listener, call: Call) -> CallFacts:
    """Read a call of a listener."""
    return reader_of(of)(cast("grpc.ServicerContext", call), "main", 2.0)
