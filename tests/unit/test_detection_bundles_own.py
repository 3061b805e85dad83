"""The bundles of the detection bench: each checks, is about the tools as they are, and passes the tests that it brings."""

from pathlib import Path

import pytest
import yaml

from authz.bundle import CompiledBundle, compile_bundle, read_folder
from bench.detection.judge import NOW_MS
from bench.detection.systems import SYSTEMS

ROOT = Path(__file__).parents[2] / "bench" / "detection"


def folder(domain: str) -> Path:
    """The folder of a domain's bundle."""
    return ROOT / domain / "bundle"


def compiled(domain: str) -> CompiledBundle:
    """A domain's bundle, its own tests run."""
    return compile_bundle(read_folder(folder(domain)), {}, now_ms=NOW_MS)


def with_bundle(domain: str) -> str:
    """The domain, if somebody has written its bundle; a test of another one is skipped."""
    if not folder(domain).is_dir():
        pytest.skip(f"{domain} has no bundle yet")
    return domain


@pytest.mark.parametrize("domain", SYSTEMS)
def test_a_bundle_checks_and_passes_its_own_tests(domain: str) -> None:
    """A bundle checks without a warning, and passes its own tests, of work as of attacks."""
    made = compiled(with_bundle(domain))
    assert not made.plan.warnings
    assert made.tests.passed > 50
    assert not made.tests.skipped
    assert {file.name for file in (folder(domain) / "tests").iterdir()} == {
        "attacks.yaml",
        "work.yaml",
    }


@pytest.mark.parametrize("domain", SYSTEMS)
def test_a_bundle_knows_the_tools_as_they_are(domain: str) -> None:
    """The catalog is that of the systems' tools, and every one of them is reviewed."""
    assert set(compiled(with_bundle(domain)).plan.systems) == {
        system.name for system in SYSTEMS[domain]
    }
    for system in SYSTEMS[domain]:
        path = folder(domain) / "catalog" / f"{system.name}.mcp.yaml"
        catalog = yaml.safe_load(path.read_text("utf-8"))
        known = [
            {
                "name": tool["name"],
                "description": tool["description"],
                "inputSchema": tool["input"],
                "annotations": tool["annotations"],
            }
            for tool in catalog["tools"]
        ]
        assert known == system.listing()
