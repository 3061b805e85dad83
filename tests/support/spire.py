"""A real SPIRE server and agent, on addresses of their own."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Final, Self

from tests.support.waiting import eventually, free_port

VERSION: Final = "v1.13.3"
_CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "authz"
BINARIES: Final = _CACHE / f"spire-{VERSION}"

_SERVER: Final = """\
server {{
  bind_address = "127.0.0.1"
  bind_port = "{port}"
  socket_path = "{folder}/api.sock"
  trust_domain = "{domain}"
  data_dir = "{folder}/server"
  log_level = "WARN"
  ca_ttl = "1h"
  default_x509_svid_ttl = "10m"
  default_jwt_svid_ttl = "5m"
  federation {{
    bundle_endpoint {{
      address = "127.0.0.1"
      port = {endpoint}
      refresh_hint = "1s"
      profile "https_spiffe" {{}}
    }}
  }}
}}
plugins {{
  DataStore "sql" {{
    plugin_data {{
      database_type = "sqlite3"
      connection_string = "{folder}/server/data.sqlite3"
    }}
  }}
  KeyManager "memory" {{ plugin_data {{}} }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
}}
"""
_AGENT: Final = """\
agent {{
  data_dir = "{folder}/agent"
  log_level = "WARN"
  server_address = "127.0.0.1"
  server_port = "{port}"
  socket_path = "{folder}/agent.sock"
  trust_bundle_path = "{folder}/bootstrap.pem"
  trust_domain = "{domain}"
  join_token = "{token}"
}}
plugins {{
  KeyManager "memory" {{ plugin_data {{}} }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  WorkloadAttestor "unix" {{ plugin_data {{}} }}
}}
"""


def built() -> bool:
    """Tells whether SPIRE is there."""
    return all((BINARIES / name).exists() for name in ("spire-server", "spire-agent"))


class Spire:
    """A server of a trust domain, and an agent that it attested by a join token."""

    def __init__(self, folder: Path, domain: str) -> None:
        self.domain = domain
        self.folder = folder
        self.port, self.endpoint = free_port(), free_port()
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        (self.folder / "server").mkdir(parents=True)
        (self.folder / "agent").mkdir()
        self._run("server", _SERVER)
        eventually(lambda: self._healthy("server"), what="SPIRE's server is healthy")
        (self.folder / "bootstrap.pem").write_text(self.server("bundle", "show"))
        agent = f"spiffe://{self.domain}/agent"
        token = self.ask("token", "generate", "-spiffeID", agent)["value"]
        self._run("agent", _AGENT, token=token)
        eventually(lambda: self._healthy("agent"), what="SPIRE's agent is healthy")

    def _run(self, name: str, text: str, **values: str) -> None:
        configuration = self.folder / f"{name}.conf"
        configuration.write_text(
            text.format(
                folder=self.folder,
                domain=self.domain,
                port=self.port,
                endpoint=self.endpoint,
                **values,
            )
        )
        with (self.folder / f"{name}.log").open("wb") as log:
            self._running.append(
                subprocess.Popen(
                    [str(BINARIES / f"spire-{name}"), "run", "-config", str(configuration)],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )

    def _healthy(self, name: str) -> bool:
        socket = self.folder / ("api.sock" if name == "server" else "agent.sock")
        asked = subprocess.run(
            [str(BINARIES / f"spire-{name}"), "healthcheck", "-socketPath", str(socket)],
            capture_output=True,
            timeout=10,
            check=False,
        )
        return asked.returncode == 0

    def close(self) -> None:
        """Ends both."""
        for process in reversed(self._running):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
        self._running.clear()

    def server(self, *command: str) -> str:
        """Gives a command to the server, and returns what it prints."""
        return subprocess.run(
            [
                str(BINARIES / "spire-server"),
                *command,
                "-socketPath",
                str(self.folder / "api.sock"),
            ],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout

    def ask(self, *command: str) -> dict[str, Any]:
        """Gives a command to the server, and reads its answer."""
        answer: dict[str, Any] = json.loads(self.server(*command, "-output", "json"))
        return answer

    def register(self, path: str) -> None:
        """Gives an identity to every process of this user."""
        self.server(
            *("entry", "create", "-parentID", f"spiffe://{self.domain}/agent"),
            *("-spiffeID", f"spiffe://{self.domain}{path}", "-selector", f"unix:uid:{os.getuid()}"),
        )

    @property
    def workload_api(self) -> str:
        """The address of the agent's Workload API."""
        return f"unix://{self.folder / 'agent.sock'}"

    @property
    def bundle(self) -> str:
        """The bundle as the server keeps it."""
        return self.server("bundle", "show", "-format", "spiffe")

    def token(self, *audience: str) -> str:
        """Fetches a JWT-SVID as a workload does."""
        import spiffe  # noqa: PLC0415 - an extra

        client = spiffe.WorkloadApiClient(self.workload_api, default_timeout=5)
        try:
            return client.fetch_jwt_svid(set(audience)).token
        finally:
            client.close()

    def known(self) -> set[str]:
        """The ids of the keys that the agent knows, which learns of a change when it next asks the server."""
        import spiffe  # noqa: PLC0415 - an extra

        client = spiffe.WorkloadApiClient(self.workload_api, default_timeout=5)
        try:
            bundle = client.fetch_jwt_bundles().get_bundle_for_trust_domain(
                spiffe.TrustDomain(self.domain)
            )
        finally:
            client.close()
        return set(bundle.jwt_authorities) if bundle else set()

    def prepare(self) -> str:
        """Makes the next key of JWT-SVIDs, and publishes it; returns its id."""
        prepared: str = self.ask("localauthority", "jwt", "prepare")["prepared_authority"][
            "authority_id"
        ]
        return prepared

    def activate(self, authority: str) -> str:
        """Signs with that key from now on; returns the id of the one before."""
        self.ask("localauthority", "jwt", "activate", "-authorityID", authority)
        old: str = self.ask("localauthority", "jwt", "show")["old"]["authority_id"]
        return old

    def revoke(self, authority: str) -> None:
        """Takes a key out of the bundle."""
        self.ask("localauthority", "jwt", "taint", "-authorityID", authority)
        self.ask("localauthority", "jwt", "revoke", "-authorityID", authority)
