"""The pages of docs/operate: each block of commands runs as printed, or says why it does not."""

import json
import math
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from authz.tools.demo.envoy import find_envoy
from tests.support.host import ROOT, SYSTEMD, Host
from tests.support.postgres import Postgres, programs
from tests.support.readme import blocks, matches
from tests.support.svid import Signer
from tests.support.tools import find
from tests.support.waiting import eventually

PAGES: Final = sorted((ROOT / "docs" / "operate").glob("*.md"))
# PR_SET_NO_NEW_PRIVS and PR_SET_MDWE are `NoNewPrivileges` and `MemoryDenyWriteExecute` of the unit. A kernel before 6.3 has no MDWE.
CONFINED: Final = """
import ctypes, os, sys
prctl = ctypes.CDLL(None).prctl
assert prctl(38, 1, 0, 0, 0) == 0
prctl(65, 1, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
_FENCE: Final = re.compile(r"^(?P<before>.*)\n```(?:sh|console|bash)\n", re.MULTILINE)
_REASON: Final = re.compile(r"<!-- not run: \S.{10,} -->")


def page(name: str) -> Path:
    """A page."""
    return ROOT / "docs" / "operate" / f"{name}.md"


def section(name: str, heading: str) -> str:
    """The text of a section of a page."""
    return page(name).read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]


def run_page(host: Host, name: str) -> list[str]:
    """Run the blocks of a page in order; return what each printed."""
    printed = []
    for block in blocks(page(name).read_text()):
        printed.append(host.run(block.commands))
        if block.output is not None:
            assert matches(block.output, printed[-1]), f"{name}:{block.line}\n{printed[-1]}"
    assert printed, f"{name} runs nothing"
    return printed


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_each_block_runs_or_says_why_not(
    path: Path, record_property: Callable[[str, object], None]
) -> None:
    """No block is passed over in silence."""
    marks = [match["before"] for match in _FENCE.finditer(path.read_text())]
    assert [mark for mark in marks if mark != "<!-- run -->" and not _REASON.fullmatch(mark)] == []
    record_property("not run", sum(mark != "<!-- run -->" for mark in marks))


@pytest.fixture
def host() -> Any:
    """A machine with Authz installed; the service does not run yet."""
    with Host() as made:
        made.install()
        yield made


def test_systemd_page(host: Host) -> None:
    """Check, start, look, reload: as printed."""
    find("systemd-analyze")
    host.path("/run/authz").chmod(0o750)
    status, verified = run_page(host, "systemd")[1:3]
    assert re.search(r"ready\W+yes", status)
    exposure = re.search(r"Overall exposure level for authz.service: (\d+\.\d)", verified)
    assert exposure is not None
    assert float(exposure[1]) <= 1.5


def test_the_drop_in_with_tls_fits_the_unit_and_the_configuration(host: Host) -> None:
    """Systemd reads it, and its variables are a listener with mutual TLS."""
    find("systemd-analyze")
    drop_in = SYSTEMD / "tls.conf"
    folder = host.path("/etc/systemd/system/authz.service.d")
    folder.mkdir()
    shutil.copy(drop_in, folder)
    host.run("systemd-analyze verify --man=no /etc/systemd/system/authz.service")
    variables = re.findall(r"(?m)^Environment=(.*)$", drop_in.read_text())
    assert len(variables) == 4
    exports = " ".join(
        variable.replace("%d", "/run/credentials/authz.service") for variable in variables
    )
    host.run(f"env {exports} authz config validate")
    with pytest.raises(AssertionError, match="has a key without a certificate"):
        host.run(f"env {' '.join(exports.split()[:2])} authz config validate")


def test_the_node_tells_its_service_manager(host: Host) -> None:
    """Ready when every listener is open, and when it stops; without new rights, and without memory that is both written and run."""
    place = host.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(place))
        manager.settimeout(60)
        node = subprocess.Popen(
            [sys.executable, "-c", CONFINED, str(Path(sys.executable).with_name("authz")), "serve"],
            env={**host.environment, "NOTIFY_SOCKET": str(place)},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert manager.recv(64) == b"READY=1"
            assert re.search(r"ready\W+yes", host.authz("status"))
            node.send_signal(signal.SIGTERM)
            assert manager.recv(64) == b"STOPPING=1"
            _, log = node.communicate(timeout=60)
        finally:
            node.kill()
    assert node.returncode == 0, log


def test_bundles_page(host: Host) -> None:
    """Seal, publish by a link, and go back: the node serves what the link leads to."""
    bundle = host.path("/srv/authz/bundle")
    host.run("systemctl start authz")
    (bundle / "bundle.yaml").write_text(
        re.sub(r"(?m)^revision:.*$", "", (bundle / "bundle.yaml").read_text()) + "revision: r43\n"
    )
    printed = run_page(host, "bundles")
    assert "MANIFEST.sha256:" in printed[0]
    assert "quickstart r43" in printed[2]
    assert "quickstart r43" not in printed[3]
    assert host.path("/srv/authz/current").readlink() == Path("releases/42")


#: Metrics of parts that the node of the page has not; tests/integration/test_shared_signals.py sees them.
ONLY_WHERE_CONFIGURED = frozenset({"authz_security_events_total"})


def test_runbook_page(host: Host) -> None:
    """The first look works on a node that is well."""
    host.run("systemctl start authz")
    run_page(host, "runbook")
    # The metrics of the pages are there.
    shown = host.run("curl --silent http://127.0.0.1:8282/metrics")
    for name in ("runbook", "sizing"):
        named = re.findall(r"\b(?:authz|process)_[a-z_]+\b", page(name).read_text())
        for metric in set(named) - ONLY_WHERE_CONFIGURED:
            assert re.search(rf"(?m)^# TYPE {metric.removesuffix('_info')}\b|^{metric}\b", shown), (
                metric
            )


@pytest.mark.peers
def test_kubernetes_page(host: Host) -> None:
    """What is installed is rendered as printed."""
    tools = find("helm").parent
    host.environment["PATH"] += f":{tools}"
    run_page(host, "kubernetes")
    assert "kind: StatefulSet" in host.path("/srv/authz/rendered.yaml").read_text()


@pytest.mark.envoy
def test_envoy_page(host: Host) -> None:
    """Envoy takes the shipped files, also with each of the other clusters."""
    envoy = find_envoy()
    if envoy is None:
        pytest.skip("Envoy is not installed")
    host.path("/bin/envoy").symlink_to(envoy)
    run_page(host, "envoy")
    files = host.path("/etc/envoy/tls")
    files.mkdir(parents=True)
    authority = Signer.authority("example.org")
    svid = authority.svid("spiffe://example.org/ns/gateways/sa/gateway")
    (files / "tls.crt").write_bytes(svid.pem)
    (files / "tls.key").write_bytes(svid.key_pem)
    (files / "ca.crt").write_bytes(authority.pem)
    for template in ("envoy", "mcp"):
        for cluster in ("authz-sidecar", "authz-gateway"):
            config = yaml.safe_load((ROOT / f"deploy/envoy/{template}.yaml").read_text())
            clusters = config["static_resources"]["clusters"]
            (place,) = (n for n, one in enumerate(clusters) if one["name"] == "authz")
            clusters[place] = yaml.safe_load((ROOT / f"deploy/envoy/{cluster}.yaml").read_text())
            host.path("/etc/envoy.yaml").write_text(
                yaml.safe_dump(config).replace("/etc/envoy/", f"{host.path('/etc/envoy')}/")
            )
            host.run("envoy --mode validate --config-path /etc/envoy.yaml")


def revoke(host: Host, agent: str) -> None:
    """Change the state."""
    host.authz("revoke", "agent", f"spiffe://example.org/ns/x/sa/{agent}", "--reason", "test")


def revocations(host: Host) -> int:
    """Number of revocations that the node knows."""
    found = re.search(r"(\d+) revocations", host.authz("status"))
    assert found is not None
    return int(found[1])


def stored(state: Path) -> int:
    """Number of the revocations of the test in the file of an embedded store."""
    with closing(sqlite3.connect(f"file:{state}?mode=ro", uri=True)) as connection:
        query = "SELECT count(*) FROM records WHERE id LIKE '%/ns/x/sa/%'"
        return int(connection.execute(query).fetchone()[0])


def test_backup_page_of_the_embedded_store(host: Host) -> None:
    """What was there at the backup is there again, and what came later is not, as the page warns."""
    exact, running, restore, restore_copy = blocks(section("backup", "Embedded store"))
    host.run("systemctl start authz")
    revoke(host, "one")
    host.run(exact.commands)
    assert revocations(host) == 1
    revoke(host, "two")
    # A commit is in the file about a second later.
    state = host.path("/var/lib/authz/state/state.db")
    eventually(lambda: stored(state) == 2, what="the store is written")
    host.run(running.commands)
    revoke(host, "three")
    assert revocations(host) == 3
    assert "1 revocations" in host.run(restore.commands)
    host.run(restore_copy.commands)
    assert revocations(host) == 2
    for block in blocks(section("backup", "Audit")):
        assert int(host.run(block.commands).split()[0]) >= 3


@pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed")
def test_backup_page_of_postgresql() -> None:
    """A dump of a working database, restored under a stopped node."""
    dump, restore = blocks(section("backup", "PostgreSQL"))
    with Postgres() as database, Host() as host:
        host.install(state={"engine": "postgresql"})
        host.environment["AUTHZ_STATE_DSN"] = database.dsn
        host.run("systemctl start authz")
        revoke(host, "one")
        host.run(dump.commands)
        revoke(host, "two")
        assert revocations(host) == 2
        host.run(restore.commands)
        assert revocations(host) == 1


def test_upgrade_page(host: Host) -> None:
    """The checks before an upgrade, and the message of an older version on a newer store."""
    run_page(host, "upgrade")
    host.run("systemctl start authz")
    host.run("systemctl stop authz")
    host.run("sqlite3 /var/lib/authz/state/state.db 'PRAGMA user_version = 99'")
    with pytest.raises(AssertionError) as refused:
        host.run("systemctl start authz")
    (message,) = re.findall(r"error: .*newer.*", str(refused.value))
    (shown,) = re.findall(r"(?m)^error: .*$", section("upgrade", "Go back"))
    assert message.replace(str(host.folder), "") == shown


def test_each_alert_has_a_section_and_each_section_an_alert() -> None:
    """By its `runbook_url`, in the order of severity that the file has."""
    rules: dict[str, Any] = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())
    alerts = {
        rule["alert"]: rule["annotations"]["runbook_url"]
        for group in rules["groups"]
        for rule in group["rules"]
    }
    sections = re.findall(r"(?m)^## (Authz\w+)$", page("runbook").read_text())
    assert sorted(sections) == sorted(alerts)
    assert alerts == {name: f"docs/operate/runbook.md#{name.lower()}" for name in alerts}


def test_sizing_has_the_figures_that_were_measured() -> None:
    """Processor time and memory, rounded up, of the committed results."""
    text = page("sizing").read_text()
    rows = json.loads((ROOT / "bench/results/load.json").read_text())["rows"]

    def worst(key: str, **of: object) -> float:
        busy = [row for row in rows if row["rate"] == 0 and row["concurrency"] in {16, 64}]
        return float(max(row[key] for row in busy if of.items() <= row.items()))

    for lane in ("python", "fast"):
        check, proxy = (
            math.ceil(worst("server_cpu_us", lane=lane, surface=surface) / 10) * 10
            for surface in ("check", "ext_authz")
        )
        assert f"| {lane.capitalize()} lane | {check} µs | {proxy} µs |".lower() in text.lower()
    for policies in (1000, 10000):
        memory = math.ceil(worst("rss_mb", policies=policies) / 10) * 10
        assert f"| a node with {policies:,} policies | {memory} MiB |" in text
    tasks = json.loads((ROOT / "bench/results/tasks.json").read_text())["memory_mb"]
    assert f"| 100,000 tasks of three scope entries | {math.ceil(tasks / 10) * 10} MB |" in text
    sessions = json.loads((ROOT / "bench/results/history.json").read_text())["memory_mb"]
    assert f"| 100,000 sessions with four labels | {round(sessions, -1):.0f} MB |" in text
