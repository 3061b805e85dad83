"""The Helm chart, by Helm itself: what it renders is valid, loads, and cannot decide wrongly."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from authz import __version__
from authz.bundle import MANIFEST, read_folder
from tests.support.chart import (
    CHART,
    EXAMPLES,
    MANIFESTS,
    helm,
    manifest,
    of_kind,
    pod,
    project,
    projected,
    render,
    resources,
    values,
)
from tests.support.server import command

pytestmark = pytest.mark.peers

QUICKSTART = CHART.parents[2] / "examples" / "quickstart" / "bundle"
EXAMPLE = pytest.mark.parametrize("example", EXAMPLES)


def rendered(example: str, *more: str) -> str:
    """The rendered chart."""
    done = render(example, *more)
    assert done.returncode == 0, done.stderr
    return done.stdout


@EXAMPLE
def test_the_manifests_are_those_of_the_chart(example: str) -> None:
    """`make manifests` writes them."""
    assert (MANIFESTS / f"{example}.yaml").read_text() == manifest(example)
    assert {path.stem for path in MANIFESTS.iterdir()} == set(EXAMPLES)


@EXAMPLE
@pytest.mark.parametrize("version", ["1.29.0", "1.34.0", "1.37.0"])
def test_each_resource_has_the_form_of_kubernetes(example: str, version: str) -> None:
    """No key is unknown, from the oldest version that the chart allows on."""
    checked = 0
    for resource in resources(rendered(example)):
        if resource["kind"] == "ServiceMonitor":
            continue
        kubernetes_validate.validate(resource, version, strict=True)
        checked += 1
    assert checked >= 6


def test_the_chart_has_the_version_of_the_server() -> None:
    """It is the tag of the image."""
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == __version__


@EXAMPLE
def test_lint(example: str) -> None:
    """Helm's own check."""
    done = helm("lint", str(CHART), "--strict", *values(example))
    assert done.returncode == 0, done.stdout


@EXAMPLE
def test_pods_keep_the_restricted_standard(example: str) -> None:
    """Pod Security Standards, `restricted`: each container, those that start before the others included."""
    spec = pod(rendered(example))
    assert spec["automountServiceAccountToken"] is False
    assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}
    shared = spec["securityContext"]
    for container in [*spec["initContainers"], *spec["containers"]]:
        own = shared | container.get("securityContext", {})
        assert own["runAsNonRoot"] is True
        assert own["runAsUser"] != 0
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"]["drop"] == ["ALL"]
        assert own["seccompProfile"]["type"] == "RuntimeDefault"
        if container["name"] in {"authz", "prepare"}:
            assert own["readOnlyRootFilesystem"] is True
            assert container["resources"]["limits"]["memory"]
    allowed = {"projected", "emptyDir", "csi", "configMap", "persistentVolumeClaim"}
    kinds = {key for volume in spec["volumes"] for key in volume if key != "name"}
    assert kinds <= allowed
    # The node refuses a bundle or a key in the folder of a plain volume of these kinds, which is open to everybody.
    mounts = {mount["name"] for one in containers(spec) for mount in one["volumeMounts"]}
    own = [volume for volume in spec["volumes"] if volume["name"] in mounts]
    assert not any("configMap" in volume or "secret" in volume for volume in own)


def containers(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The containers of Authz."""
    for container in [*spec["initContainers"], *spec["containers"]]:
        if container["name"] == "authz":
            yield container


@pytest.fixture
def machine() -> Iterator[Path]:
    """A folder that stands for a machine, with a name so short that sockets fit into it."""
    with tempfile.TemporaryDirectory(prefix="m-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a trust domain."""
    folder = tmp_path_factory.mktemp("keys")
    make = [*command(), "keys", "make", str(folder), "--domain", "example.org"]
    subprocess.run(make, check=True, capture_output=True)
    return folder / "bundle.json"


def lay_out(text: str, folder: Path) -> Path:
    """Write the volumes of a pod below a folder; return the configuration, whose paths lead there."""
    spec = pod(text)
    tls = {"tls.crt": b"x", "tls.key": b"x", "ca.crt": b"x"}
    secrets = {
        "authz-tls": tls,
        "authz-page-tls": tls,
        "authz-page-client": {"client_secret": b"s"},
        "crm": {"token": b"t"},
    }
    (container,) = containers(spec)
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for mount in container["volumeMounts"]:
        volume = volumes.get(mount["name"], {})
        if "projected" in volume:
            files, mode = projected(text, volume, secrets)
            project(folder / mount["mountPath"].lstrip("/"), files, mode)
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert environment["AUTHZ_CONFIG"] == "/etc/authz/config/config.yaml"
    config = folder / "etc/authz/config/config.yaml"
    placed = re.sub(r"(/etc/authz|/run/authz|/var/lib/authz)/", rf"{folder}\1/", config.read_text())
    (folder / "config.yaml").write_text(placed)
    return folder / "config.yaml"


def validate(config: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Check a configuration as the node of the pod reads it."""
    dsn = {} if "embedded" in config.read_text() else {"AUTHZ_STATE_DSN": "host=/run/postgresql"}
    return subprocess.run(
        [*command(), "config", "validate", "--config", str(config), *more],
        env={"PATH": str(Path(sys.executable).parent), "AUTHZ_NODE": "authz-0", **dsn},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@EXAMPLE
def test_the_configuration_loads_with_bundle_and_keys(
    example: str, keys: Path, machine: Path
) -> None:
    """Authz reads the rendered volumes: the manifest that Helm computes is right, and the bundle's own tests pass."""
    config = lay_out(
        rendered(example, "--set-file", rf"trust.files.example\.org\.json={keys}"), machine
    )
    done = validate(config, "--files")
    assert done.returncode == 0, done.stderr
    assert "the bundle is valid: example r1, 1 tests" in done.stdout
    # And it is the manifest that counts.
    (bundle,) = machine.glob("etc/authz/bundle/..1")
    (bundle / "policies/bot.cedar").write_text("// half")
    refused = validate(config, "--files")
    assert refused.returncode == 3
    assert f"`policies/bot.cedar` is not the file that {MANIFEST} lists" in refused.stderr


def test_a_wrong_key_of_the_configuration_fails(tmp_path: Path) -> None:
    """The chart hands on what it does not know, and Authz says where it is wrong."""
    config = lay_out(rendered("statefulset", "--set", "config.limits.thread=8"), tmp_path)
    done = validate(config)
    assert done.returncode == 3
    assert "unknown key `thread` under `limits`. Did you mean `threads`?" in done.stderr


def test_values_of_a_bundle_folder(tmp_path: Path) -> None:
    """`authz bundle values` prints values by which the chart mounts exactly the folder."""
    printed = subprocess.run(
        [*command(), "bundle", "values", str(QUICKSTART)], capture_output=True, check=True
    )
    (tmp_path / "values.yaml").write_bytes(printed.stdout)
    # Of common.yaml the configuration stays; its bundle does not.
    common = yaml.safe_load((CHART / "ci/common.yaml").read_text())
    del common["bundle"]
    (tmp_path / "common.yaml").write_text(yaml.safe_dump(common))
    done = helm(
        *("template", "authz", str(CHART), "--values", str(CHART / "ci/statefulset.yaml")),
        *("--values", str(tmp_path / "common.yaml"), "--values", str(tmp_path / "values.yaml")),
    )
    assert done.returncode == 0, done.stderr
    lay_out(done.stdout, tmp_path)
    mounted = read_folder(tmp_path / "etc/authz/bundle", require_manifest=True)
    assert mounted.files == read_folder(QUICKSTART).files


@pytest.mark.parametrize(
    ("example", "change", "message"),
    [
        ("statefulset", "replicas=2", r"embedded with replicas: 2\. Each replica would have"),
        ("statefulset", "kind=Deployment", r"kind: Deployment starts several pods or loses"),
        ("statefulset", "kind=DaemonSet", r"kind: DaemonSet starts several pods or loses"),
        ("sidecar", "state.engine=embedded", r"kind: Sidecar starts several pods or loses"),
        ("statefulset", "config.state.engine=memory", r"set state\.engine of the chart instead"),
        (
            "statefulset",
            "state.dsnSecret.name=x",
            r"dsnSecret is given, but state\.engine is embedded",
        ),
        ("deployment", "state.dsnSecret.name=", r"has no state\.dsnSecret\.name"),
        ("deployment", "tls.secretName=", r"tls\.secretName is missing"),
        ("deployment", "bundle.files=null", r"no bundle: set bundle\.files"),
        ("deployment", "bundle.volume.emptyDir.medium=Memory", r"both given\. Keep one"),
        ("deployment", r"bundle.files.a__b\.yaml=x", r"`a__b\.yaml` has `__`"),
        ("sidecar", "sidecar.containers=null", r"has no sidecar\.containers"),
        ("deployment", "kind=Sidecar", r"approvalsPage\.enabled with kind: Sidecar"),
        ("deployment", "approvalsPage.url=", r"approvalsPage\.url is missing"),
        ("deployment", "approvalsPage.url=http://x", r"does not match pattern"),
        ("deployment", "approvalsPage.tls.secretName=", r"tls\.secretName is missing: the page"),
        ("deployment", "approvalsPage.login.clientId=", r"login\.clientId is missing"),
        (
            "deployment",
            "approvalsPage.login.issuer=,approvalsPage.passkeys.rpId=",
            r"neither login\.issuer nor passkeys\.rpId",
        ),
        ("deployment", "replica=3", r"additional properties 'replica' not allowed"),
        ("deployment", "kind=Job", r"value must be one of 'Deployment'"),
        ("deployment", "terminationGracePeriodSeconds=5", r"minimum: got 5, want 11"),
        ("deployment", "image.digest=latest", r"does not match pattern"),
        ("deployment", r"bundle.files.\.\.\\/x=y", r"does not match pattern"),
    ],
)
def test_values_that_would_decide_wrongly_are_refused(
    example: str, change: str, message: str
) -> None:
    """With the fix."""
    done = render(example, "--set", change)
    assert done.returncode != 0
    assert re.search(message, done.stderr), done.stderr


def test_a_change_of_the_bundle_restarts_nothing_and_one_of_the_configuration_does() -> None:
    """The node follows the ConfigMap of the bundle while it serves."""

    def template(*more: str) -> Any:
        (workload,) = of_kind(rendered("deployment", *more), "Deployment")
        return workload["spec"]["template"]

    change = r"bundle.files.policies/bot\.cedar=// nothing"
    assert template("--set-string", change) == template()
    assert template("--set", "config.limits.threads=4") != template()


def test_an_own_volume_takes_the_place_of_the_files() -> None:
    """For example an image that holds the bundle."""
    text = rendered(
        "statefulset",
        *("--set", "bundle.files=null", "--set", "bundle.path=bundles/prod"),
        *("--set", "bundle.volume.image.reference=registry.example/bundle:43"),
    )
    volumes = {volume["name"]: volume for volume in pod(text)["volumes"]}
    assert volumes["bundle"] == {
        "name": "bundle",
        "image": {"reference": "registry.example/bundle:43"},
    }
    (config,) = (
        one for one in of_kind(text, "ConfigMap") if one["metadata"]["name"].endswith("-config")
    )
    bundle = yaml.safe_load(config["data"]["config.yaml"])["bundle"]
    assert bundle == {"path": "/etc/authz/bundle/bundles/prod", "require_manifest": True}


def test_a_browser_stays_at_one_pod_of_the_page() -> None:
    """Logins live in the memory of one pod."""
    text = rendered("deployment")
    services = {one["metadata"]["name"]: one["spec"] for one in of_kind(text, "Service")}
    page = services["authz-page"]
    assert page["sessionAffinity"] == "ClientIP"
    assert page["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"] == 8 * 3600
    assert page["ports"][0]["targetPort"] == "page"
    assert "clusterIP" not in page, "an address of its own, which keeps clients apart"
    (ingress,) = of_kind(text, "Ingress")
    (rule,) = ingress["spec"]["rules"]
    assert rule["host"] == "authz.corp.example"
    assert [path["path"] for path in rule["http"]["paths"]] == ["/"]
    (policy,) = of_kind(text, "NetworkPolicy")
    (allowed,) = (
        one
        for one in policy["spec"]["ingress"]
        if one["ports"] == [{"port": "page", "protocol": "TCP"}]
    )
    assert allowed["from"][0]["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "ingress-nginx"
    }
    path = ("--set", "approvalsPage.url=https://corp.example/authz")
    (ingress,) = of_kind(rendered("deployment", *path), "Ingress")
    assert ingress["spec"]["rules"][0]["http"]["paths"][0]["path"] == "/authz"


def test_the_secret_of_the_page_stands_in_no_configmap() -> None:
    """The client secret is a file of a Secret, and without one the client is public."""

    def login(text: str) -> Any:
        (config,) = (
            one for one in of_kind(text, "ConfigMap") if one["metadata"]["name"].endswith("-config")
        )
        return yaml.safe_load(config["data"]["config.yaml"])["approvals"]["login"]

    assert login(rendered("deployment")) == {
        "issuer": "corp",
        "client_id": "authz-page",
        "scopes": ["openid"],
        "client_secret_file": "/etc/authz/page/client_secret",
    }
    public = rendered("deployment", "--set", "approvalsPage.login.clientSecret.name=")
    assert "client_secret_file" not in login(public)


def test_a_chart_without_the_page_serves_none() -> None:
    """It is off by default."""
    text = rendered("daemonset")
    assert {one["metadata"]["name"] for one in of_kind(text, "Service")} == {"authz"}
    assert "8383" not in text
