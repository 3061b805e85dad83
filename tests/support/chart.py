"""The Helm chart: renders it, and lays out the volumes of a rendered pod as kubelet does.

`python -m tests.support.chart` writes the manifests of deploy/kubernetes from the examples of the chart.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.tools import find

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "deploy" / "helm" / "authz"
MANIFESTS: Final = ROOT / "deploy" / "kubernetes"
EXAMPLES: Final = ("deployment", "daemonset", "statefulset", "sidecar")
KUBERNETES: Final = "1.34.0"
_HEAD: Final = """\
# Rendered from the Helm chart by `make manifests`; do not edit. The values are deploy/helm/authz/ci/{name}.yaml and common.yaml there.
# Replace the bundle and the keys in its ConfigMaps, the image, and the names of its Secrets.
"""


def render(example: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Render the chart with the values of an example.

    Args:
        example: Name of the example.
        more: Further arguments of `helm template`.
    """
    return helm("template", "authz", str(CHART), *values(example), *more)


def values(example: str) -> tuple[str, ...]:
    """The arguments that name the values of an example."""
    files = (CHART / "ci" / "common.yaml", CHART / "ci" / f"{example}.yaml")
    return tuple(argument for file in files for argument in ("--values", str(file)))


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Helm. It is built from source, so it knows no version of Kubernetes by itself."""
    of_cluster: tuple[str, ...] = ("--kube-version", KUBERNETES, "--namespace", "authz")
    if arguments[0] == "template":
        of_cluster += ("--api-versions", "monitoring.coreos.com/v1")
    return subprocess.run(
        [str(find("helm")), *arguments, *of_cluster],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def resources(rendered: str) -> list[dict[str, Any]]:
    """The resources of a rendered chart."""
    return [document for document in yaml.safe_load_all(rendered) if document is not None]


def of_kind(rendered: str, *kinds: str) -> Iterator[dict[str, Any]]:
    """The resources of some kinds."""
    return (one for one in resources(rendered) if one["kind"] in kinds)


def pod(rendered: str) -> dict[str, Any]:
    """The specification of the pods."""
    (workload,) = of_kind(rendered, "Deployment", "DaemonSet", "StatefulSet")
    spec: dict[str, Any] = workload["spec"]["template"]["spec"]
    return spec


def project(
    folder: Path, files: Mapping[str, bytes], mode: int = 0o644, release: str = "..1"
) -> None:
    """Write the files of a projected volume as kubelet does: in a folder of their own, behind the link `..data`.

    The folder of the volume is open to everybody and sticky, as the root of a `tmpfs` is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o1777)
    for name, content in files.items():
        place = folder / release / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        place.chmod(mode)
    (folder / "..data_tmp").symlink_to(release)
    (folder / "..data_tmp").rename(folder / "..data")
    for name in {Path(name).parts[0] for name in files}:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")


def projected(
    rendered: str, volume: Mapping[str, Any], secrets: Mapping[str, Mapping[str, bytes]]
) -> tuple[dict[str, bytes], int]:
    """The files of a projected volume, and their mode."""
    maps = {one["metadata"]["name"]: one["data"] for one in of_kind(rendered, "ConfigMap")}
    files: dict[str, bytes] = {}
    for source in volume["projected"]["sources"]:
        kind = "secret" if "secret" in source else "configMap"
        data: Mapping[str, Any] = (
            secrets[source[kind]["name"]] if kind == "secret" else maps[source[kind]["name"]]
        )
        items = source[kind].get("items") or [{"key": key, "path": key} for key in data]
        for item in items:
            content = data[item["key"]]
            files[item["path"]] = content if isinstance(content, bytes) else content.encode()
    return files, volume["projected"].get("defaultMode", 0o644)


def write_manifests(examples: Sequence[str] = EXAMPLES, folder: Path = MANIFESTS) -> None:
    """Write the manifests of the examples."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in examples:
        (folder / f"{name}.yaml").write_text(manifest(name))


def manifest(example: str) -> str:
    """The manifest of an example."""
    done = render(example)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return _HEAD.format(name=example) + done.stdout


if __name__ == "__main__":
    os.umask(0o022)
    write_manifests()
