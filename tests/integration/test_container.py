"""The container: what it holds, and that a rendered pod of the Helm chart runs in it without any right."""

import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from authz.bundle import seal_folder
from tests.support.chart import of_kind, pod, project, projected, render
from tests.support.container import USER, Image, Mount, Running, built
from tests.support.postgres import Postgres, programs
from tests.support.server import command
from tests.support.svid import Signer
from tests.support.waiting import eventually, free_port

pytestmark = [pytest.mark.peers, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """The image of the tree."""
    with tempfile.TemporaryDirectory(prefix="authz-image-") as folder, built(Path(folder)) as made:
        yield made


def test_the_image_runs_as_nobody_and_has_no_shell(image: Image) -> None:
    """An attacker in the process finds no tool, and nothing of Authz that it could change."""
    assert image.config["User"] == f"{USER}:{USER}"
    assert image.config["Entrypoint"] == ["/opt/authz/bin/authz"]
    assert image.config["Cmd"] == ["serve"]
    programs = {
        path.name
        for folder in ("bin", "usr/bin", "usr/local/bin")
        for path in (image.root / folder).glob("*")
    }
    assert programs.isdisjoint({"sh", "dash", "bash", "busybox", "apt", "apt-get", "pip", "pip3"})
    changeable = [
        path
        for path in (image.root / "opt/authz").rglob("*")
        if (status := path.lstat()).st_uid == USER
        or (status.st_mode & stat.S_IWOTH and not path.is_symlink())
    ]
    assert changeable == []
    data = (image.root / "var/lib/authz").stat()
    assert (data.st_uid, data.st_gid, stat.S_IMODE(data.st_mode)) == (USER, USER, 0o700)
    assert (image.root / "var/lib").stat().st_uid == 0


def test_demo(image: Image) -> None:
    """Real calls in a throw-away trust domain, on a read-only root."""
    done = image.run("authz", "demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"(\d+) of \1 calls as expected", done.stdout)


def test_check_and_init(image: Image) -> None:
    """The tools of the command work, for example in a job of CI."""
    script = "import subprocess as s; s.run(['authz','init','/tmp/b'],check=True); s.run(['authz','test','/tmp/b'],check=True)"
    done = image.run("/opt/authz/bin/python", "-c", script)
    assert done.returncode == 0, done.stdout + done.stderr


class Kubelet:
    """Runs the containers of a rendered pod, with volumes as kubelet makes them."""

    def __init__(self, rendered: str, folder: Path, secrets: dict[str, dict[str, bytes]]) -> None:
        self.spec = pod(rendered)
        self.folder = folder
        group = self.spec["securityContext"]["fsGroup"]
        claims = [
            claim["metadata"]["name"]
            for one in of_kind(rendered, "StatefulSet")
            for claim in one["spec"].get("volumeClaimTemplates", ())
        ]
        for volume in self.spec["volumes"]:
            place = folder / volume["name"]
            if "projected" in volume:
                files, mode = projected(rendered, volume, secrets)
                project(place, files, mode)
                for path in (place, *place.rglob("*")):
                    os.chown(path, 0, group, follow_symlinks=False)
            elif "csi" in volume or "configMap" in volume:
                place.mkdir()
            else:
                place.mkdir()
                # A `tmpfs` is sticky, a folder of the disk is not.
                place.chmod(0o1777 if volume["emptyDir"].get("medium") == "Memory" else 0o777)
        for name in claims:
            (folder / name).mkdir()
            os.chown(folder / name, 0, group)
            (folder / name).chmod(0o2775)

    def mounts(self, container: dict[str, Any]) -> list[Mount]:
        """The mounts of a container."""
        return [
            Mount(
                self.folder / mount["name"] / mount.get("subPath", ""),
                mount["mountPath"],
                mount.get("readOnly", False),
            )
            for mount in container["volumeMounts"]
        ]

    def prepare(self, image: Image) -> None:
        """Run the containers that end before the others start."""
        for container in self.spec["initContainers"]:
            if container.get("restartPolicy") == "Always":
                continue
            done = image.run(*container["command"], mounts=self.mounts(container))
            assert done.returncode == 0, done.stderr

    def start(
        self, image: Image, own: dict[str, str] | None = None, *, has_network: bool = False
    ) -> Any:
        """Run the container of Authz.

        Args:
            image: The image.
            own: Variables of the test, in place of those of the pod.
            has_network: The container has the network of the host.
        """
        everything = [*self.spec["initContainers"], *self.spec["containers"]]
        (container,) = (one for one in everything if one["name"] == "authz")
        environment = {entry["name"]: entry.get("value", "authz-0") for entry in container["env"]}
        return image.running(
            *image.config["Entrypoint"],
            *container["args"],
            mounts=self.mounts(container),
            environment=environment | (own or {}),
            has_network=has_network,
        )


@pytest.fixture
def secrets() -> dict[str, dict[str, bytes]]:
    """The Secret of the listener."""
    authority = Signer.authority("example.org")
    svid = authority.svid("spiffe://example.org/ns/authz/sa/authz")
    return {"authz-tls": {"tls.crt": svid.pem, "tls.key": svid.key_pem, "ca.crt": authority.pem}}


@pytest.fixture
def rendered(tmp_path: Path) -> str:
    """The example of one node, with keys of a trust domain."""
    return with_keys("statefulset", tmp_path)


def with_keys(example: str, tmp_path: Path) -> str:
    """An example, with keys of a trust domain."""
    keys = tmp_path / "keys"
    make = [*command(), "keys", "make", str(keys), "--domain", "example.org"]
    subprocess.run(make, check=True, capture_output=True)
    done = render(example, "--set-file", rf"trust.files.example\.org\.json={keys}/bundle.json")
    assert done.returncode == 0, done.stderr
    return done.stdout


def is_ready(node: Running) -> bool:
    """Whether the readiness probe succeeds."""
    return node.exec("authz", "healthcheck").returncode == 0


def status(node: Running) -> str:
    """What an administrator sees."""
    return node.exec("authz", "status").stdout


def test_a_rendered_pod_serves_and_follows_its_bundle(
    image: Image, rendered: str, secrets: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    """Volumes as kubelet makes them: it starts, takes a new bundle by `..data`, refuses half of one, and stops in order."""
    kubelet = Kubelet(rendered, tmp_path / "volumes", secrets)
    kubelet.prepare(image)
    assert stat.S_IMODE((tmp_path / "volumes/data/authz").stat().st_mode) & 0o777 == 0o700
    bundle = tmp_path / "volumes/bundle"
    with kubelet.start(image) as node:
        eventually(lambda: is_ready(node), what="the node is ready", within=90)
        assert "example r1" in status(node)
        files = {
            path.relative_to(bundle / "..1").as_posix(): path.read_bytes()
            for path in (bundle / "..1").rglob("*")
            if path.is_file()
        }
        files["bundle.yaml"] = files["bundle.yaml"].replace(b"r1", b"r2")
        project(bundle, files, release="..2")
        eventually(lambda: "MANIFEST.sha256" in status(node), what="it is refused: no new manifest")
        assert "example r1" in status(node)
        seal_folder(bundle / "..2")
        (bundle / "..data_tmp").symlink_to("..2")
        (bundle / "..data_tmp").rename(bundle / "..data")
        eventually(lambda: "example r2" in status(node), what="the new bundle serves")
        assert node.stop() == 0, node.log.read_text()
    # The store and the audit outlive the pod.
    assert (tmp_path / "volumes/data/authz/state/state.db").exists()
    with kubelet.start(image) as node:
        eventually(lambda: is_ready(node), what="the node is ready again", within=90)


def has_database(node: Running) -> bool:
    """Whether the node keeps its state in PostgreSQL."""
    return "postgresql, kept" in status(node)


@pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed")
@pytest.mark.parametrize("example", ["deployment", "daemonset", "sidecar"])
def test_rendered_pods_share_a_database(
    example: str, image: Image, secrets: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    """Two pods, each with volumes on a disk that is open to everybody: what is revoked at one is known to the other."""
    rendered = with_keys(example, tmp_path)
    secrets["crm"] = {"token": b"secret"}
    secrets["authz-page-tls"] = secrets["authz-tls"]
    secrets["authz-page-client"] = {"client_secret": b"secret"}
    with Postgres() as database, ExitStack() as pods:
        nodes = []
        for number in range(2):
            kubelet = Kubelet(rendered, tmp_path / f"volumes-{number}", secrets)
            kubelet.prepare(image)
            own = {
                "AUTHZ_NODE": f"authz-{number}",
                "AUTHZ_STATE_DSN": database.dsn,
                "AUTHZ_LISTENERS_METRICS_ADDRESS": f"127.0.0.1:{free_port()}",
            }
            if example != "sidecar":
                own["AUTHZ_LISTENERS_MAIN_ADDRESS"] = f"127.0.0.1:{free_port()}"
            if example == "deployment":
                own["AUTHZ_LISTENERS_APPROVALS_ADDRESS"] = f"127.0.0.1:{free_port()}"
            nodes.append(pods.enter_context(kubelet.start(image, own, has_network=True)))
        for node in nodes:
            eventually(partial(has_database, node), what="the node keeps its state", within=90)
        agent = "spiffe://example.org/ns/bots/sa/a"
        revoked = nodes[0].exec("authz", "revoke", "agent", agent, "--reason", "test")
        assert revoked.returncode == 0, revoked.stderr
        eventually(lambda: "1 revocations" in status(nodes[1]), what="the other pod knows it")
        assert [node.stop() for node in nodes] == [0, 0]


def test_a_plain_config_map_volume_is_refused(
    image: Image, rendered: str, secrets: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    """Its folder has mode 0777: the node says so, and does not start."""
    kubelet = Kubelet(rendered, tmp_path / "volumes", secrets)
    kubelet.prepare(image)
    (tmp_path / "volumes/bundle").chmod(0o777)
    with kubelet.start(image) as node:
        assert node.process.wait(timeout=90) == 3
        log = node.log.read_text()
    assert "folder `/etc/authz/bundle` can be written by others (mode 0777)" in log


def test_the_container_has_the_extras_that_the_pages_name(image: Image) -> None:
    """Workload API, PostgreSQL broker, traces, S3 and PKCS#11."""
    done = image.run(
        "/opt/authz/bin/python",
        "-c",
        "import spiffe, asyncpg, pkcs11, botocore.auth, opentelemetry.sdk",
    )
    assert done.returncode == 0, done.stderr
