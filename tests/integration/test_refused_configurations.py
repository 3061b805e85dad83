"""What `authz serve` does not start with: each says what, where, and how to fix it."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.minting import Authority
from tests.support.server import command, layout

#: Change of a good configuration, and what must be said.
REFUSED: Mapping[str, tuple[Mapping[str, Any], tuple[str, ...]]] = {
    "an issuer without audience": (
        {"trust": {"issuers": {"corp": {"audience": None}}}},
        ("config.yaml:", "corp", "audience", "any service would be accepted"),
    ),
    "an issuer without algorithms": (
        {"trust": {"issuers": {"corp": {"algorithms": None}}}},
        ("config.yaml:", "corp", "algorithms"),
    ),
    "an issuer that may sign with a secret": (
        {"trust": {"issuers": {"corp": {"algorithms": ["HS256"]}}}},
        ("HS256",),
    ),
    "an issuer that need not sign": (
        {"trust": {"issuers": {"corp": {"algorithms": ["none"]}}}},
        ("none",),
    ),
    "no audience of our own": ({"identity": {"audiences": []}}, ("identity.audiences",)),
    "a certificate without a key": (
        {"listeners": {"main": {"insecure_dev": False, "tls": {"cert_file": "server.pem"}}}},
        ("main", "key"),
    ),
    "plain TCP": ({"listeners": {"main": {"insecure_dev": False}}}, ("main", "tls")),
    "plain TCP for the world": (
        {"listeners": {"main": {"address": "0.0.0.0:9191"}}},
        ("main", "loopback"),
    ),
    "a key of an earlier version": (
        {"limits": {"processor": 0}},
        ("config.yaml:", "limits.processor", "Remove it"),
    ),
    "an unknown key": ({"listners": {}}, ("config.yaml:", "listners", "listeners")),
    "an unknown key deep down": (
        {"trust": {"issuers": {"corp": {"audiences": ["x"]}}}},
        ("config.yaml:", "audiences"),
    ),
    "a key of later work": ({"topology": "sidecar"}, ("topology", "not in this version")),
    "no audit": ({"audit": {"path": None}}, ("audit",)),
    "an audit that cannot be written": (
        {"audit": {"path": "/proc/authz/audit.jsonl"}},
        ("audit",),
    ),
    "an enforcer without a system": (
        {"enforcers": [{"name": "x", "listener": "crm-only", "asks": []}]},
        ("`x`",),
    ),
    "an enforcer on a port": (
        {"enforcers": [{"name": "x", "listener": "main", "asks": ["system:*"]}]},
        ("`x`", "unix"),
    ),
    "administration on a port": (
        {"listeners": {"admin": {"address": "127.0.0.1:9999"}}},
        ("admin", "unix"),
    ),
    "a bundle that is not there": (
        {"bundle": {"path": "/nonexistent/bundle"}},
        ("/nonexistent/bundle",),
    ),
    "a variable that is missing": (
        {"vars": {"trust_domain": None}},
        ("facts.yaml:", "trust_domain"),
    ),
    "a key file that is not there": (
        {"trust": {"domains": {"a.example": {"bundle": {"file": "/nonexistent/keys"}}}}},
        ("a.example", "/nonexistent/keys"),
    ),
}


def serve(folder: Path) -> subprocess.CompletedProcess[str]:
    """Starts the server and waits for it to give up."""
    return subprocess.run(
        [*command(), "serve", "--config", str(folder / "config.yaml")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=folder,
    )


def is_clean(done: subprocess.CompletedProcess[str]) -> bool:
    """Tells whether a command gave up in words, not by a crash."""
    return done.returncode not in {0, -6, -11} and "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, authority: Authority, tmp_path: Path) -> None:
    """It does not start, and says why."""
    change, words = REFUSED[name]
    layout(tmp_path, authority, "desk", change)
    done = serve(tmp_path)
    assert is_clean(done), done.stderr
    said = done.stdout + done.stderr
    assert [word for word in words if word not in said] == [], said


def test_several_defects_are_told_at_once(authority: Authority, tmp_path: Path) -> None:
    """Fix one at a time would take all day."""
    change = {
        "trust": {"issuers": {"corp": {"audience": None}, "machines": {"algorithms": None}}},
        "listeners": {"main": {"insecure_dev": False}},
    }
    layout(tmp_path, authority, "desk", change)
    said = serve(tmp_path).stderr
    assert all(word in said for word in ("`corp`", "`machines`", "`main`")), said


def test_a_bundle_that_does_not_compile(authority: Authority, tmp_path: Path) -> None:
    """At the start there is no older one: it does not start."""
    place = layout(tmp_path, authority, "desk")
    policies = place.folder / "bundle" / "policies" / "desk.cedar"
    policies.write_text(
        policies.read_text().replace("Collection", "Colection").replace("boss", "bos")
    )
    done = serve(tmp_path)
    assert is_clean(done), done.stderr
    assert "policies/desk.cedar:" in done.stdout + done.stderr


def test_secrets_are_not_printed(authority: Authority, tmp_path: Path) -> None:
    """The configuration that is shown holds no variable's value, which may be a secret."""
    layout(
        tmp_path,
        authority,
        "desk",
        {"vars": {"trust_domain": "a.example", "api_key": "s3cr3t-v4lue"}},
    )
    shown = subprocess.run(
        [*command(), "config", "print", "--config", str(tmp_path / "config.yaml")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "s3cr3t-v4lue" not in shown.stdout + shown.stderr


@pytest.mark.parametrize("key", ["audit", "state"])
@pytest.mark.parametrize("mode", [0o777, 0o757])
def test_a_folder_that_others_can_write(
    authority: Authority, tmp_path: Path, key: str, mode: int
) -> None:
    """Whoever may write to a folder above could put another file in the place of audit or store."""
    folder = tmp_path / "open"
    (folder / "inner").mkdir(parents=True)
    folder.chmod(mode)
    path = folder / "inner" / ("audit.jsonl" if key == "audit" else "state")
    layout(tmp_path, authority, "desk", {key: {"path": str(path)}})
    done = serve(tmp_path)
    assert is_clean(done), done.stderr
    said = f"folder `{folder}` can be written by others (mode {mode:04o})"
    assert said in done.stdout + done.stderr
    assert not path.exists() or key == "state"


@pytest.mark.parametrize("name", ["bundle", "config.yaml"])
def test_what_everybody_can_replace_is_not_served(
    authority: Authority, tmp_path: Path, name: str
) -> None:
    """Who writes bundle and configuration says what is permitted, and who is trusted."""
    place = layout(tmp_path, authority, "desk")
    open_one = place.folder / name
    open_one.chmod(0o777)
    done = serve(tmp_path)
    assert is_clean(done), done.stderr
    said = (
        f"folder `{open_one}` can be written by others"
        if name == "bundle"
        else "everybody can write"
    )
    assert said in done.stdout + done.stderr


def test_an_audit_file_that_is_a_link(authority: Authority, tmp_path: Path) -> None:
    """Records are not appended to whatever a link leads to."""
    target = tmp_path / "target"
    target.write_text("kept\n")
    link = tmp_path / "link.jsonl"
    link.symlink_to(target)
    layout(tmp_path, authority, "desk", {"audit": {"path": str(link)}})
    done = serve(tmp_path)
    assert is_clean(done), done.stderr
    assert "is a symbolic link" in done.stdout + done.stderr
    assert target.read_text() == "kept\n"
