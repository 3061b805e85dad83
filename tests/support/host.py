"""A machine as the pages of docs/operate describe it: its folders are in a temporary folder, and its services are processes of the test.

A page's commands run as printed, but for the folders and addresses of `_places`, and for `systemctl`, which starts, reloads and stops
the command of the unit.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

import yaml

from tests.support.waiting import free_port

ROOT: Final = Path(__file__).parents[2]
SYSTEMD: Final = ROOT / "deploy" / "systemd"
_FOLDERS: Final = (
    "/etc",
    "/srv/authz",
    "/var/lib/authz",
    "/var/log/authz",
    "/var/backups",
    "/run/authz",
)
_SYSTEMCTL: Final = """\
#!/bin/bash
set -eu
case "$1" in
  enable|start)
    authz serve >>"$HOST/log" 2>&1 & echo $! >"$HOST/pid"
    for _ in $(seq 300); do
      curl --silent --output /dev/null "http://$HOST_METRICS/readyz" && exit 0
      kill -0 "$(cat "$HOST/pid")" 2>/dev/null || { cat "$HOST/log" >&2; exit 1; }
      sleep 0.1
    done
    exit 1 ;;
  reload) exec authz status --reload ;;
  stop)
    pid=$(cat "$HOST/pid"); rm "$HOST/pid"; kill "$pid"
    for _ in $(seq 300); do kill -0 "$pid" 2>/dev/null || exit 0; sleep 0.1; done
    exit 1 ;;
  *) exit 2 ;;
esac
"""


class Host:
    """One machine."""

    def __init__(self) -> None:
        # Short, since paths of sockets are.
        self.folder = Path(tempfile.mkdtemp(prefix="ah-"))
        self.folder.chmod(0o755)
        self.metrics = f"127.0.0.1:{free_port()}"
        for name in (*_FOLDERS, "/bin"):
            self.path(name).mkdir(parents=True)
        self.path("/run/authz").chmod(0o750)
        systemctl = self.path("/bin/systemctl")
        systemctl.write_text(_SYSTEMCTL)
        systemctl.chmod(0o755)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AUTHZ_")},
            "PATH": f"{self.path('/bin')}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "COLUMNS": "120",
            "NO_COLOR": "1",
            "HOST": str(self.folder),
            "HOST_METRICS": self.metrics,
            "AUTHZ_CONFIG": str(self.path("/etc/authz/config.yaml")),
            "AUTHZ_ADMIN": f"unix://{self.path('/run/authz/admin.sock')}",
            "AUTHZ_LISTENERS_METRICS_ADDRESS": self.metrics,
        }

    def path(self, path: str) -> Path:
        """Return the place of a path of the machine."""
        return self.folder / path.removeprefix("/")

    def install(self, **changes: Any) -> None:
        """Install the files of deploy/systemd, keys for development, and release 42 of the quickstart's bundle.

        Args:
            changes: Sections of the configuration, in place of those of deploy/systemd/config.yaml.
        """
        etc = self.path("/etc/authz")
        (etc / "trust").mkdir(parents=True)
        config = yaml.safe_load(self._placed((SYSTEMD / "config.yaml").read_text())) | changes
        self.authz("keys", "make", str(etc / "dev"), "--domain", "example.org")
        shutil.copy(etc / "dev" / "bundle.json", etc / "trust" / "example.org.json")
        shutil.copy(etc / "dev" / "jwks.json", etc / "trust" / "corp.json")
        (etc / "config.yaml").write_text(yaml.safe_dump(config))
        units = self.path("/etc/systemd/system")
        units.mkdir(parents=True)
        unit = (SYSTEMD / "authz.service").read_text()
        program = Path(sys.executable).with_name("authz")
        (units / "authz.service").write_text(unit.replace("/opt/authz/bin/authz", str(program)))
        srv = self.path("/srv/authz")
        shutil.copytree(ROOT / "examples" / "quickstart" / "bundle", srv / "bundle")
        self.authz("bundle", "seal", str(srv / "bundle"))
        (srv / "releases").mkdir()
        shutil.copytree(srv / "bundle", srv / "releases" / "42")
        (srv / "current").symlink_to("releases/42")

    def authz(self, *words: str) -> str:
        """Run the command; return its output."""
        return self.run(f"authz {' '.join(words)}")

    def run(self, commands: str) -> str:
        """Run commands of a page; return their output."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self._placed(_own(commands))],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _placed(self, text: str) -> str:
        for name in _FOLDERS:
            # A path that is placed already stays.
            text = re.sub(rf"(?<![\w.-]){name}(?![\w.-])", str(self.path(name)), text)
        return text.replace("127.0.0.1:8282", self.metrics)

    def close(self) -> None:
        """Stop the service, and remove the folder."""
        pid = self.folder / "pid"
        if pid.exists():
            with suppress(ProcessLookupError):
                os.kill(int(pid.read_text()), signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _own(commands: str) -> str:
    """Return commands that give files to this process's user, since the machine has no user `authz`."""
    return commands.replace("-o authz -g authz", f"-o {os.getuid()} -g {os.getgid()}")
