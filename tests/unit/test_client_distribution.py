"""The distribution `authz-client`: its version and its licence, and that it runs on every operating system."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

import pytest

from tests.support.node import Node, decision

ROOT = Path(__file__).parents[2]

# The standard library and the dependencies know on which system they run; the client must not need to.
WITHOUT_POSIX = """
import asyncio, importlib, multiprocessing, os, pkgutil, subprocess, sys, tempfile
import grpc, grpc.aio, jwt
import google.protobuf.message
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from google.rpc import error_details_pb2

for name in ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty"):
    sys.modules[name] = None
for name in ("fork", "getuid", "geteuid", "getgid", "O_NOFOLLOW", "O_CLOEXEC", "chown", "fchmod"):
    delattr(os, name)
sys.platform = "win32"

import authz_client

imported = 0
for module in pkgutil.walk_packages(authz_client.__path__, "authz_client."):
    try:
        importlib.import_module(module.name)
    except ImportError as error:
        # An integration needs the library of its name.
        library = module.name.removeprefix("authz_client.integrations.").removeprefix("_")
        library = {
            "fastmcp_held": "fastmcp",
            "langgraph": "langchain_core",
            "openai_agents": "agents",
        }.get(library, library)
        assert error.name and error.name.split(".")[0] == library, module.name
    else:
        imported += 1
print(imported)
"""


def test_the_readme(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its example runs as printed, with both answers."""
    (block,) = re.findall(
        r"^```python\n(.*?)^```$", (ROOT / "client/README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    token = tmp_path / "svid.jwt"
    token.write_text("svid")
    node = Node().says("Check", decision("PERMITTED"), decision("FORBIDDEN"))
    with node.served(f"unix:{tmp_path}/a.sock"):
        code = block.replace("unix:///run/authz/authz.sock", f"unix://{tmp_path}/a.sock")
        code = code.replace("/run/spiffe/svid.jwt", str(token)).replace(
            "credentials=", "timeout=20, credentials="
        )
        for _ in range(2):
            names: dict[str, Any] = {}
            exec(compile(code, "README.md", "exec"), names)
            names["authz"].close()
    permitted, refused = capsys.readouterr().out.splitlines()
    assert permitted == "['ticket about printers']"
    assert refused.startswith("The operation may not be performed.")


def project(folder: Path) -> dict[str, Any]:
    """Table `project` of a folder's pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return table


def test_client_and_server_have_one_version() -> None:
    """One version, and the server asks for exactly that client: the messages are there."""
    own = project(ROOT / "client")["version"]
    workspace = tomllib.loads((ROOT / "native/Cargo.toml").read_text())["workspace"]
    assert own == workspace["package"]["version"]
    assert f"authz-client=={own}" in project(ROOT)["dependencies"]
    assert version("authz-client") == own


def test_licence_is_that_of_the_server() -> None:
    """A wheel takes its licence from its own folder."""
    assert (ROOT / "client/LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_dependencies_stay_few() -> None:
    """A new dependency of every agent is a decision, made here."""
    names = [line.split(";")[0] for line in requires("authz-client") or [] if "extra" not in line]
    assert sorted(name.split(">")[0] for name in names) == [
        "cryptography",
        "googleapis-common-protos",
        "grpcio",
        "protobuf",
        "pyjwt",
    ]


def test_bounds_are_those_of_the_generated_code() -> None:
    """The oldest versions that the metadata allows are those of the generator."""
    source = ROOT / "client/src/authz_client/v1"
    wanted = project(ROOT / "client")["dependencies"]
    messages = (source / "decision_pb2.py").read_text()
    protobuf = messages.split("# Protobuf Python Version: ")[1].split()[0]
    assert f"protobuf>={protobuf},<{int(protobuf.split('.')[0]) + 2}" in wanted
    services = (source / "authorizer_pb2_grpc.py").read_text()
    grpc = services.split("GRPC_GENERATED_VERSION = '")[1].split("'")[0]
    assert f"grpcio>={grpc},<2" in wanted


def test_every_module_imports_without_posix() -> None:
    """Imports on an operating system without POSIX's modules and functions."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_POSIX], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30
