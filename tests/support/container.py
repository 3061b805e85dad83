"""The container: built by buildah from bases of Debian's packages, and run by runc as kubelet runs a pod.

No registry of images is asked. The bases, and the wheels beside those of the tree, are in the cache: `make test-tools` puts them there.
"""

import json
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.packing import ROOT, pack

USER: Final = 65532
_NAMESPACES: Final = ("pid", "ipc", "uts", "mount", "network")
_CAPABILITIES: Final = ("bounding", "effective", "inheritable", "permitted", "ambient")


def peers() -> Path:
    """The folder with the bases and wheels; without it, or without root, the test is left out."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "authz"
    done = sorted(base.glob("container-*/done"), reverse=True)
    if not done or os.geteuid() != 0 or not all(map(shutil.which, ("buildah", "runc"))):
        pytest.skip("buildah, runc, root or the base images are not there; run: make test-tools")
    return done[0].parent


@dataclass(frozen=True)
class Mount:
    """A folder of the host in a container."""

    source: Path
    target: str
    is_read_only: bool = False


@dataclass
class Image:
    """A built image."""

    root: Path
    """Its files."""
    config: Mapping[str, Any]
    """Its configuration, as in the image specification of OCI."""
    _folder: Path

    def run(
        self,
        *arguments: str,
        mounts: Sequence[Mount] = (),
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a container of its own, and wait for its end."""
        name, bundle = self._bundle(arguments, mounts, environment or {})
        return self._runc("run", "--bundle", str(bundle), name, timeout=120)

    @contextmanager
    def running(
        self,
        *arguments: str,
        mounts: Sequence[Mount] = (),
        environment: Mapping[str, str] | None = None,
        has_network: bool = False,
    ) -> Iterator["Running"]:
        """Run a command in a container of its own until the end of the block.

        Args:
            arguments: The command.
            mounts: Folders.
            environment: Variables, beside those of the image.
            has_network: The container has the network of the host, for example to reach a database of the test.
        """
        name, bundle = self._bundle(arguments, mounts, environment or {}, has_network=has_network)
        log = (bundle / "log").open("w")
        process = subprocess.Popen(
            [*self._command(), "run", "--bundle", str(bundle), name], stdout=log, stderr=log
        )
        try:
            yield Running(self, name, process, bundle / "log")
        finally:
            self._runc("kill", name, "KILL")
            process.wait(timeout=30)
            log.close()

    def exec(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a running container."""
        return self._runc("exec", name, *arguments, timeout=60)

    def _bundle(
        self,
        arguments: Sequence[str],
        mounts: Sequence[Mount],
        environment: Mapping[str, str],
        *,
        has_network: bool = False,
    ) -> tuple[str, Path]:
        """Write the configuration of a container: read-only root, no right, no network but loopback of its own."""
        name = f"authz-{uuid.uuid4().hex[:12]}"
        bundle = self._folder / name
        bundle.mkdir()
        set_by_image = list(self.config["Env"])
        specification = {
            "ociVersion": "1.0.2",
            "hostname": "authz-0",
            "root": {"path": str(self.root), "readonly": True},
            "process": {
                "user": {"uid": USER, "gid": USER, "additionalGids": [USER]},
                "args": list(arguments),
                "env": [*set_by_image, *(f"{key}={value}" for key, value in environment.items())],
                "cwd": "/",
                "capabilities": {kind: [] for kind in _CAPABILITIES},
                "noNewPrivileges": True,
            },
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {
                    "destination": "/tmp",
                    "type": "tmpfs",
                    "source": "tmpfs",
                    "options": ["nosuid", "nodev", "mode=1777"],
                },
                *(
                    {
                        "destination": mount.target,
                        "type": "bind",
                        "source": str(mount.source),
                        "options": ["rbind", "ro" if mount.is_read_only else "rw"],
                    }
                    for mount in mounts
                ),
            ],
            "linux": {
                "namespaces": [
                    {"type": kind} for kind in _NAMESPACES if kind != "network" or not has_network
                ]
            },
        }
        (bundle / "config.json").write_text(json.dumps(specification))
        return name, bundle

    def _command(self) -> list[str]:
        return ["runc", "--root", str(self._folder / "runc")]

    def _runc(self, *arguments: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._command(), *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )


@dataclass
class Running:
    """A container that runs."""

    image: Image
    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def exec(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it."""
        return self.image.exec(self.name, *arguments)

    def stop(self) -> int:
        """Stop it as kubelet does; return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


@contextmanager
def built(folder: Path) -> Iterator[Image]:
    """Build the image of the tree."""
    cache = peers()
    context = folder / "context"
    shutil.copytree(cache / "wheels", context / "dist")
    pack(context / "dist")
    for file in (ROOT / "deploy/container").iterdir():
        shutil.copy(file, context)
    store = folder / "store"
    buildah = ("buildah", "--root", str(store), "--runroot", str(folder / "runroot"))

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [*buildah, *arguments], capture_output=True, text=True, timeout=400, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    try:
        for name in ("build", "runtime"):
            base = run("from", "scratch")
            run("add", "--quiet", base, str(cache / f"{name}.tar"), "/")
            run("commit", "--quiet", "--rm", base, f"localhost/{name}")
        bases = ("--build-arg", "BUILD=localhost/build", "--build-arg", "RUNTIME=localhost/runtime")
        run("bud", "--isolation", "chroot", *bases, "--tag", "localhost/authz", str(context))
        container = run("from", "localhost/authz")
        root = Path(run("mount", container))
        config = json.loads(run("inspect", "--type", "image", "localhost/authz"))["OCIv1"]["config"]
        yield Image(root, config, folder)
    finally:
        subprocess.run([*buildah, "umount", "--all"], capture_output=True, check=False)
        subprocess.run([*buildah, "rm", "--all"], capture_output=True, check=False)
        shutil.rmtree(store, ignore_errors=True)
