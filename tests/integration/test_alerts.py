"""Alert rules, by Prometheus' own tool."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.tools import find

pytestmark = pytest.mark.peers

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"


def alerts() -> set[str]:
    """Names of all alerts."""
    rules: dict[str, Any] = yaml.safe_load((FOLDER / "alerts.yaml").read_text())
    return {rule["alert"] for group in rules["groups"] for rule in group["rules"]}


def test_rules() -> None:
    """Every test of the rules passes."""
    done = subprocess.run(
        [str(find("promtool")), "test", "rules", "alerts_test.yaml"],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_and_does_not_fire() -> None:
    """The tests hold both for every rule, and no rule goes untested."""
    tests: dict[str, Any] = yaml.safe_load((FOLDER / "alerts_test.yaml").read_text())
    fires: set[str] = set()
    quiet: set[str] = set()
    for test in tests["tests"]:
        for one in test["alert_rule_test"]:
            (fires if one.get("exp_alerts") else quiet).add(one["alertname"])
    assert fires == alerts()
    assert quiet == alerts()
