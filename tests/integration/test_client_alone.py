"""The client without the server: its wheel in an empty environment, with the newest and the oldest versions it allows."""

import json
import os
import re
import subprocess
import sys
import venv
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.support.fixtures import Servers
from tests.support.minting import Authority
from tests.support.people import People
from tests.support.reasons import VARIABLE, write_reason_rows

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.peers, pytest.mark.timeout(400)]  # they install packages

# Tests that need the server, or a library that the client does not bring, run elsewhere: SPIFFE's needs a newer grpcio than the client itself.
ELSEWHERE = re.compile(
    r"^(from|import) (fastmcp|hypothesis|mcp|spiffe|tests\.support\.approval_site)\b", re.MULTILINE
)
TESTS = sorted(
    path
    for path in (ROOT / "tests/unit").glob("test_client*.py")
    if not ELSEWHERE.search(path.read_text())
)
EXTRAS = ("httpx", "httpx2")
TOOLS = ("pytest==9.0.2", "pytest-timeout==2.4.0")


@dataclass(frozen=True)
class Environment:
    """A virtual environment."""

    folder: Path

    def run(self, *arguments: str | Path, **variables: str) -> str:
        """Runs the interpreter; returns what it prints."""
        done = subprocess.run(
            [self.folder / "bin/python", *arguments],
            capture_output=True, text=True, check=False, timeout=300, cwd=ROOT,
            env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **variables, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout

    def install(self, *arguments: str | Path) -> None:
        """Installs packages."""
        self.run("-m", "pip", "install", "--quiet", "--only-binary", ":all:", *arguments)

    def packages(self) -> dict[str, str]:
        """The installed packages and their versions, without those that a new environment has."""
        listed = json.loads(self.run("-m", "pip", "list", "--format", "json"))
        own = ("pip", "setuptools")
        return {one["name"].lower(): one["version"] for one in listed if one["name"] not in own}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's wheel, built by its own build backend."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(folder),
    ]
    subprocess.run([sys.executable, "-m", *build, str(ROOT / "client")], check=True)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def people(authority: Authority) -> People:
    """Good credentials."""
    return People.of(authority)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """An environment with Python alone."""
    venv.create(tmp_path / "venv", with_pip=True)
    return Environment(tmp_path / "venv")


def oldest(wheel: Path) -> list[str]:
    """The lower bound of each requirement in the wheel, as constraints."""
    with ZipFile(wheel) as archive:
        (name,) = [one for one in archive.namelist() if one.endswith("/METADATA")]
        metadata = Parser().parsestr(archive.read(name).decode())
    found = [
        re.match(r"([\w-]+) *>=([\w.]+)", line) for line in metadata.get_all("Requires-Dist", [])
    ]
    return [f"{one[1]}=={one[2]}" for one in found if one]


ASK = """
import sys
from authz_client import Authz, Denied, acting_for

address, agent, subject = sys.argv[1:]
with Authz(address, credentials=agent, timeout=20) as authz, acting_for(subject):
    print(authz.check("crm.search", {"query": "T-1"}).operation)
    try:
        authz.check("wiki.archive", {"page": "home"})
    except Denied as denied:
        print(denied.public_code)
"""


def test_the_wheel_asks_a_server_from_an_empty_environment(
    wheel: Path, environment: Environment, servers: Servers, people: People
) -> None:
    """It brings the packages that its README counts, and none of the server's."""
    environment.install(wheel)
    packages = environment.packages()
    assert sorted(packages) == [
        "authz-client", "cffi", "cryptography", "googleapis-common-protos", "grpcio",
        "protobuf", "pycparser", "pyjwt", "typing_extensions",
    ]  # fmt: skip
    readme = (ROOT / "client/README.md").read_text()
    assert f"{len(packages) - 1} packages" in readme

    server = servers.of("desk")
    address = server.place.config["listeners"]["none"]["address"]
    printed = environment.run("-c", ASK, address, people.bot, people.alice)
    assert printed.split() == ["crm.search", "DENIED"]


def test_the_clients_tests_pass_with_the_oldest_versions(
    wheel: Path, environment: Environment, tmp_path: Path
) -> None:
    """Each lower bound of the metadata is a version that works."""
    constraints = tmp_path / "oldest.txt"
    constraints.write_text("\n".join(oldest(wheel)) + "\n")
    environment.install("-c", constraints, f"{wheel}[{','.join(EXTRAS)}]", *TOOLS)
    packages = environment.packages()
    bounds = dict(line.split("==") for line in oldest(wheel))
    newer = {
        name for name in bounds.keys() & packages if not packages[name].startswith(bounds[name])
    }
    assert newer == set()
    rows = tmp_path / "reasons.json"
    write_reason_rows(rows)
    printed = environment.run(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "filterwarnings=default", *TESTS,
        **{VARIABLE: str(rows)},
    )  # fmt: skip
    count = re.search(r"(\d+) passed", printed)
    assert count is not None
    assert int(count[1]) > 300
    assert "skipped" not in printed
