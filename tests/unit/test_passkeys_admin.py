"""`authz approval invite` and `passkeys`, over a real gRPC server."""

import json
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
import structlog

from authz.approvals import Invitations
from authz.cli import main
from authz.model import CallFacts
from authz.server.grpc.passkeys import PASSKEYS, PasskeyServices
from authz.server.grpc.unary import CallContext
from authz.telemetry import Metrics
from tests.support.approving import Approvals


class Node:
    """An administration socket with passkeys alone."""

    def __init__(self, folder: Path, url: str = "https://authz.example") -> None:
        self.store, self.invitations = Approvals(), Invitations()
        self.address = f"unix:{folder}/{len(url)}.sock"
        self.failures: list[BaseException] = []

        def read(_context: grpc.ServicerContext, listener: str, remaining: float) -> CallFacts:
            return CallFacts(listener, remaining)

        context = CallContext("admin", None, 5.0, read, Metrics(), self.failures.append)
        log = structlog.testing.CapturingLogger()
        issuers = frozenset({"corp"})
        passkeys = PasskeyServices(self.store, self.invitations, url, issuers, log)
        self.server = grpc.server(futures.ThreadPoolExecutor(2))
        generic = grpc.method_handlers_generic_handler(PASSKEYS, passkeys.handlers(context))
        self.server.add_generic_rpc_handlers((generic,))
        self.server.add_insecure_port(self.address)
        self.server.start()

    def run(self, *words: str) -> int:
        """Runs the command, and returns its exit code."""
        with pytest.raises(SystemExit) as ended:
            main(["approval", *words, "--admin", self.address])
        code = ended.value.code
        return code if isinstance(code, int) else 0


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node with a page."""
    node = Node(tmp_path)
    for name in ("one", "two"):
        node.store.put_passkey(
            "corp", "alice", {"credential_id": name, "name": name, "created_at": 1_700_000_000_000}
        )
    yield node
    node.server.stop(None)
    assert node.failures == []


def test_an_invitation_is_a_link_of_the_page(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its secret stands behind `#`, so that it reaches no log of a proxy."""
    assert node.run("invite", "local/root", "--format", "json") == 0
    answer = json.loads(capsys.readouterr().out)
    url, _, secret = answer["url"].partition("#")
    assert url == "https://authz.example/invite"
    invitation = node.invitations.use(secret)
    assert invitation is not None
    assert (invitation.issuer, invitation.sub) == ("local", "root")


@pytest.mark.parametrize(
    ("person", "text"),
    [
        ("corp/alice", "its people log in there"),
        ("local/" + "x" * 60, "at most 63 bytes"),
        ("my local/root", "give an issuer of letters"),
        ("root", "write the person as ISSUER/SUB"),
    ],
)
def test_only_a_person_without_an_issuer_is_invited(
    node: Node, capsys: pytest.CaptureFixture[str], person: str, text: str
) -> None:
    """The message says what to do instead."""
    assert node.run("invite", person) == 1
    assert text in " ".join(capsys.readouterr().err.split())


def test_a_node_without_a_page_invites_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says which keys are missing."""
    node = Node(tmp_path, "")
    assert node.run("invite", "local/root") == 1
    assert "configure listeners.approvals" in " ".join(capsys.readouterr().err.split())
    node.server.stop(None)


def test_a_hundred_invitations_are_open_at_most(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    """A person has one."""
    for _ in range(3):
        node.invitations.make("local", "root")
    for number in range(99):
        node.invitations.make("local", f"p{number}")
    assert node.run("invite", "local/another") == 1
    assert "100 invitations are open" in " ".join(capsys.readouterr().err.split())


def test_an_administrator_lists_and_removes_passkeys(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    """One by its id, or all of a person."""
    assert node.run("passkeys", "corp/alice", "--format", "json") == 0
    listed = json.loads(capsys.readouterr().out)["passkeys"]
    assert [one["id"] for one in listed] == ["one", "two"]
    assert listed[0]["used"] == "never"
    assert node.run("remove-passkey", "corp/alice", "none") == 1
    assert node.run("remove-passkey", "corp/alice") == 1
    assert node.run("remove-passkey", "corp/alice", "one", "--all") == 1
    assert len(node.store.passkeys("corp", "alice")) == 2
    assert node.run("remove-passkey", "corp/alice", "one") == 0
    assert [one["credential_id"] for one in node.store.passkeys("corp", "alice")] == ["two"]
    assert node.run("remove-passkey", "corp/alice", "--all") == 0
    capsys.readouterr()
    assert node.run("passkeys", "corp/alice") == 0
    assert "has no passkey" in capsys.readouterr().out
