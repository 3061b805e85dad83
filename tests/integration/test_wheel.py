"""The built wheels: their tags and content, and the command in an environment that has Python alone.

`make test-wheel` builds wheels and runs these tests; `AUTHZ_WHEELS` names their folder.
"""

import json
import os
import re
import shutil
import subprocess
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Final
from zipfile import ZipFile

import pytest

from tests.support.pins import write_pins
from tests.support.waiting import eventually, free_port

ROOT: Final = Path(__file__).parents[2]
GLIBC: Final = (2, 28)
"""Newest glibc that the extension may need."""
FOR_THIS_MACHINE: Final = (
    "linked for this machine: use `make test-wheel-portable`, or `make test-wheel WHEELS=dist`"
)
COMPILERS: Final = ("cargo", "rustc", "cc", "gcc", "clang", "zig", "make")
PORTS: Final = ("9191", "8282")

pytestmark = [
    pytest.mark.peers,  # it installs packages
    pytest.mark.wheel,
    pytest.mark.timeout(400),
    pytest.mark.skipif("AUTHZ_WHEELS" not in os.environ, reason="needs wheels: make test-wheel"),
]


@dataclass(frozen=True)
class Wheel:
    """A wheel file."""

    path: Path

    def names(self) -> list[str]:
        """Names of the files in it."""
        with ZipFile(self.path) as archive:
            return archive.namelist()

    def metadata(self, file: str) -> Message:
        """Fields of a file of its `.dist-info`."""
        (name,) = [name for name in self.names() if name.endswith(f".dist-info/{file}")]
        with ZipFile(self.path) as archive:
            return Parser().parsestr(archive.read(name).decode())


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the wheels, and a folder to work in. Its PATH has the programs of the environment alone."""

    programs: Path
    work: Path

    def variables(self) -> dict[str, str]:
        """Environment variables of each command."""
        return {"PATH": str(self.programs), "HOME": str(self.work), "NO_COLOR": "1"}

    def run(self, program: str, *arguments: str, code: int = 0, **variables: str) -> str:
        """Run a program of the environment, and return its output."""
        done = subprocess.run(
            [self.programs / program, *arguments],
            cwd=self.work,
            env={**self.variables(), **variables},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    @contextmanager
    def serving(self, config: str, health: str) -> Iterator[None]:
        """Run a node, from its first answer that it is ready."""
        log = self.work / "serve.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [self.programs / "authz", "serve", "--config", config],
                cwd=self.work,
                env=self.variables(),
                stdout=file,
                stderr=subprocess.STDOUT,
            )

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            return re.search(r"\bready\b", log.read_text()) is not None

        try:
            eventually(ready, what="it serves")
            self.run("authz", "healthcheck", health)
            yield
        finally:
            process.terminate()
            assert process.wait(30) == 0, log.read_text()


def _wheel(distribution: str) -> Wheel:
    (path,) = Path(os.environ["AUTHZ_WHEELS"]).glob(f"{distribution}-*.whl")
    return Wheel(path)


@pytest.fixture(scope="module")
def server() -> Wheel:
    """Wheel of the server."""
    return _wheel("authz_runtime")


@pytest.fixture(scope="module")
def client() -> Wheel:
    """Wheel of the client."""
    return _wheel("authz_client")


@pytest.fixture(scope="module")
def analyzer() -> Wheel:
    """Wheel of the analyzer."""
    return _wheel("authz_analyzer")


@pytest.fixture(scope="module")
def environment(
    server: Wheel, client: Wheel, analyzer: Wheel, tmp_path_factory: pytest.TempPathFactory
) -> Environment:
    """The three wheels, Envoy and the solver, with dependencies in the versions of requirements.lock."""
    folder = tmp_path_factory.mktemp("wheel")
    venv.create(folder / "venv", with_pip=True)
    pins = write_pins(folder)
    subprocess.run(
        [
            *(folder / "venv/bin/python", "-m", "pip", "install", "--quiet"),
            *("--disable-pip-version-check", "--only-binary", ":all:", "--constraint", pins),
            *(f"{server.path}[analyze,demo]", client.path, analyzer.path),
        ],
        check=True,
        timeout=300,
    )
    (folder / "work").mkdir()
    return Environment(folder / "venv/bin", folder / "work")


def test_one_wheel_serves_every_python_and_old_systems(server: Wheel) -> None:
    """Stable ABI of Python 3.11; no symbol of a glibc newer than that of its tag, and no library beside glibc's."""
    assert server.metadata("METADATA")["Requires-Python"] == ">=3.11"
    (tag,) = server.metadata("WHEEL").get_all("Tag", [])
    matched = re.fullmatch(r"cp311-abi3-(manylinux_2_28|linux)_(x86_64|aarch64)", tag)
    assert matched, tag
    assert server.path.name.endswith(f"-{tag}.whl")
    if matched[1] == "linux":
        pytest.skip(FOR_THIS_MACHINE)
    _assert_old_glibc(server)


def test_the_analyzer_runs_on_old_systems(analyzer: Wheel) -> None:
    """An executable for every Python, with no symbol of a newer glibc than that of its tag."""
    assert analyzer.metadata("METADATA")["Requires-Python"] == ">=3.11"
    (tag,) = analyzer.metadata("WHEEL").get_all("Tag", [])
    matched = re.fullmatch(r"py3-none-(manylinux_2_28|linux)_(x86_64|aarch64)", tag)
    assert matched, tag
    assert analyzer.path.name.endswith(f"-{tag}.whl")
    if matched[1] == "linux":
        pytest.skip(FOR_THIS_MACHINE)
    _assert_old_glibc(analyzer)


def _assert_old_glibc(wheel: Wheel) -> None:
    shown = subprocess.run(
        [os.environ.get("AUTHZ_AUDITWHEEL", "auditwheel"), "show", "--json", wheel.path],
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(shown.stdout)
    versions = [
        tuple(int(part) for part in symbol.removeprefix("GLIBC_").split("."))
        for symbols in report["versioned_symbols"].values()
        for symbol in symbols
        if symbol.startswith("GLIBC_")
    ]
    assert versions, report
    assert max(versions) <= GLIBC, report
    assert report["external_libs"] == {}


def test_the_wheels_hold_the_package_and_nothing_else(server: Wheel, client: Wheel) -> None:
    """Two import names, no test, no source of the extension; a licence in both, and the extension's bill of materials."""
    for wheel, package in ((server, "authz"), (client, "authz_client")):
        names = wheel.names()
        tops = {name.split("/")[0] for name in names}
        (info,) = [top for top in tops if top.endswith(".dist-info")]
        assert tops == {package, info}
        assert f"{package}/py.typed" in names
        assert any(name.startswith(f"{info}/licenses/") for name in names)
        assert not [name for name in names if name.endswith((".rs", ".pyc", ".proto"))]
    assert [name for name in server.names() if name.endswith(".so")] == ["authz/_native.abi3.so"]
    (materials,) = [name for name in server.names() if ".dist-info/sboms/" in name]
    with ZipFile(server.path) as archive:
        components = json.loads(archive.read(materials))["components"]
    assert {"aws-lc-rs", "cedar-policy", "rusqlite"} <= {one["name"] for one in components}
    assert not [name for name in server.names() if name.startswith("authz/bin/")]
    assert not [name for name in client.names() if name.endswith(".so")]
    assert client.path.name.endswith("-py3-none-any.whl")


def test_the_wheel_of_the_analyzer_holds_one_executable(analyzer: Wheel, server: Wheel) -> None:
    """And its licence and bill of materials. The extra `analyze` requires this version, and no server needs the wheel."""
    names = analyzer.names()
    (executable,) = [name for name in names if ".dist-info/" not in name]
    assert re.fullmatch(r"authz_analyzer-[^/]+\.data/scripts/authz-analyze", executable)
    assert [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
    (materials,) = [name for name in names if ".dist-info/sboms/" in name]
    with ZipFile(analyzer.path) as archive:
        components = json.loads(archive.read(materials))["components"]
    assert {"cedar-policy", "cedar-policy-symcc"} <= {one["name"] for one in components}
    metadata = analyzer.metadata("METADATA")
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("Requires-Dist") is None
    required = server.metadata("METADATA").get_all("Requires-Dist", [])
    (ours,) = [one.replace(" ", "") for one in required if one.startswith("authz-analyzer")]
    assert re.fullmatch(
        rf"authz-analyzer=={re.escape(metadata['Version'])};extra==['\"]analyze['\"]", ours
    )


def test_the_environment_has_python_alone(environment: Environment) -> None:
    """No compiler is found, and nothing of this tree is imported."""
    for name in COMPILERS:
        assert shutil.which(name, path=str(environment.programs)) is None
    imported = environment.run(
        "python", "-c", "import authz, authz._native, authz_client, sys; print(sys.path)\n"
        "print(*(m.__file__ for m in (authz, authz._native, authz_client)), sep='\\n')",
    )  # fmt: skip
    assert str(ROOT) not in imported
    assert imported.count(str(environment.programs.parent)) >= 3


def test_version(environment: Environment, server: Wheel) -> None:
    """That of the wheel."""
    assert server.metadata("METADATA")["Version"] in environment.run("authz", "version")


def test_demo(environment: Environment) -> None:
    """Every call of the demo, with the Envoy of the extra."""
    assert "8 of 8 calls as expected" in environment.run("authz", "demo")


def test_analysis(environment: Environment) -> None:
    """The solver proves, and the analyzer is found though PATH does not name its folder."""
    shutil.copytree(ROOT / "examples/quickstart/bundle", environment.work / "quickstart")
    environment.run(
        *("authz", "analyze", "quickstart", "--format", "json", "--output", "report.json"),
        PATH="/nonexistent",
    )
    report = json.loads((environment.work / "report.json").read_text())
    assert report["bundle"]["name"] == "quickstart"
    assert report["solver"]["name"] == "cvc5"
    assert [one["rule"] for one in report["findings"]] == ["operation-nobody"]
    assert report["counts"]["not_decided"] == 0
    environment.run("authz", "diff", "quickstart", "quickstart", PATH="/nonexistent")


ASK: Final = """
import sys
from authz_client import Authz, Refused, TokenFile

authz = Authz(sys.argv[1], credentials=TokenFile("agent.jwt"), timeout=20)
print(authz.check("crm.search", {"query": "smith"}).operation)
try:
    authz.check("mail.send", {"to": ["eve@evil.example"], "text": "hi"})
except Refused as refused:
    print(type(refused).__name__, refused.reason_code, *refused.policy_ids)
"""


def test_from_an_empty_folder_to_a_decision(environment: Environment) -> None:
    """The steps of the quickstart: a bundle is written, checked, tested and served, and the client asks."""
    environment.run("authz", "init", "--enforce", "bundle")
    assert "6 policies" in environment.run("authz", "check", "bundle")
    assert "7 passed, 0 failed" in environment.run("authz", "test", "bundle")
    environment.run("authz", "keys", "make", "dev", "--bundle", "bundle")
    config = environment.work / "dev/config.yaml"
    text = config.read_text()
    free = {port: str(free_port()) for port in PORTS}
    for port, other in free.items():
        assert f":{port}" in text
        text = text.replace(f":{port}", f":{other}")
    config.write_text(text)
    token = environment.run("authz", "keys", "token", "dev", "--agent", "/ns/support/sa/bot")
    (environment.work / "agent.jwt").write_text(token)

    health = f"http://127.0.0.1:{free['8282']}/readyz"
    assert "cannot be reached" in environment.run("authz", "healthcheck", health, code=1)
    with environment.serving("dev/config.yaml", health):
        printed = environment.run("python", "-c", ASK, f"127.0.0.1:{free['9191']}")
    assert printed.splitlines() == ["crm.search", "Denied FORBIDDEN customer-data-stays"]
