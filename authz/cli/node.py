"""Verbs about a running node: serve, status, healthcheck, version."""

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from authz import __version__
from authz.cli.options import ConfigFile, Sets, configuration, flags
from authz.cli.show import Ended, Show
from authz.engine import build_profile
from authz.errors import ConfigError, UnavailableError, UsageError
from authz.model import Diagnostic
from authz.place import open_checked
from authz.server import Node
from authz.telemetry import make_logger
from authz.tools.remote import Remote
from authz.v1 import admin_pb2

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verbs.

    Args:
        app: The command.
    """
    app.command("serve")(serve)
    app.command("status")(status)
    app.command("healthcheck")(healthcheck)
    app.command("version")(version)


def serve(
    *,
    config: ConfigFile = None,
    sets: Sets = None,
    bundle: Annotated[Path | None, typer.Option(help="bundle.path", file_okay=False)] = None,
    watch: Annotated[bool | None, typer.Option(help="bundle.watch")] = None,
    grpc_addr: Annotated[str | None, typer.Option(help="listeners.main.address")] = None,
    admin_addr: Annotated[str | None, typer.Option(help="listeners.admin.address")] = None,
    metrics_addr: Annotated[str | None, typer.Option(help="listeners.metrics.address")] = None,
    tls_cert_file: Annotated[Path | None, typer.Option(help="listeners.main.tls.cert_file")] = None,
    tls_key_file: Annotated[Path | None, typer.Option(help="listeners.main.tls.key_file")] = None,
    tls_client_ca_file: Annotated[
        Path | None, typer.Option(help="listeners.main.tls.client_ca_file")
    ] = None,
    insecure_dev: Annotated[bool | None, typer.Option(help="listeners.main.insecure_dev")] = None,
    audit_path: Annotated[Path | None, typer.Option(help="audit.path", dir_okay=False)] = None,
    log_level: Annotated[str | None, typer.Option(help="log.level")] = None,
    log_format: Annotated[str | None, typer.Option(help="log.format")] = None,
    shutdown_grace_period: Annotated[str | None, typer.Option(help="shutdown_grace_period")] = None,
) -> None:
    """Serve decisions until a signal says stop; SIGHUP loads bundle and keys again."""
    named = flags(
        bundle__path=bundle,
        bundle__watch=watch,
        listeners__main__address=grpc_addr,
        listeners__admin__address=admin_addr,
        listeners__metrics__address=metrics_addr,
        listeners__main__tls__cert_file=tls_cert_file,
        listeners__main__tls__key_file=tls_key_file,
        listeners__main__tls__client_ca_file=tls_client_ca_file,
        listeners__main__insecure_dev=insecure_dev,
        audit__path=audit_path,
        log__level=log_level,
        log__format=log_format,
        shutdown_grace_period=shutdown_grace_period,
    )
    settings = configuration(config, sets, named)
    if config is not None:
        _check_place(config)
    log = make_logger(settings.log, sys.stderr)
    Node(settings, log).run()


def _check_place(config: Path) -> None:
    """Refuse a configuration that everybody could replace: it says whom the node trusts."""
    try:
        os.close(open_checked(config, strict=False))
    except OSError as error:
        raise ConfigError((Diagnostic(f"{error.strerror}.", str(config)),)) from error


def status(
    *,
    address: Annotated[
        str, typer.Option("--admin", envvar="AUTHZ_ADMIN", help="The administration socket.")
    ] = "unix:///run/authz/admin.sock",
    output: Annotated[str, typer.Option("--output", "-o", help="text or json")] = "text",
    reload: Annotated[
        bool, typer.Option("--reload", help="Load bundle and keys again first.")
    ] = False,
) -> None:
    """Tell how a node stands; exits with 1 where it is not ready, or the reload is refused."""
    show = Show()
    remote = Remote(address)
    refused = False
    if reload:
        outcome = remote.reload()
        refused = not outcome.reloaded
        for line in outcome.diagnostics:
            show.note(line)
        now = outcome.bundle_revision or "nothing"
        show.note(f"refused; bundle {now} goes on serving" if refused else f"bundle {now} serves")
        for line in _rules(outcome.rules):
            show.note(line)
    stands = remote.status()
    detail = json.loads(stands.detail_json)
    if output == "json":
        show.json(detail)
    else:
        bundle = f"{stands.bundle_name} {stands.bundle_revision} {stands.bundle_digest[:12]}"
        rows = [
            ("version", f"{stands.version} ({detail.get('build_profile', '')})"),
            ("ready", "yes" if stands.ready else "no"),
            ("bundle", bundle),
            ("from", (detail.get("files") or {}).get("bundle", "")),
            ("loaded", stands.bundle_loaded_at.ToJsonString()),
            ("trust", stands.trust_revision[:12]),
            *(("problem", problem) for problem in stands.problems),
            *(("refused", line) for line in stands.last_reload_error.splitlines()),
            *(("keys", _keys(entry)) for entry in (detail.get("trust") or {}).get("sources", ())),
            *(("listener", line) for line in _listeners(detail)),
            *(("audit", line) for line in _audit(detail)),
            *(("state", line) for line in _state(detail)),
            *(("observing", _observing(entry)) for entry in detail.get("observing", ())),
        ]
        show.table(("", address), rows)
    if refused or not stands.ready:
        raise Ended(1)


def _rules(rules: admin_pb2.RuleChanges) -> Iterator[str]:
    """What became of the progress of sequences and budgets."""
    if rules.carried:
        yield f"{rules.carried} rules are what they were: their progress goes on"
    for what, names in (
        ("changed, progress starts anew", rules.changed),
        ("new", rules.added),
        ("removed", rules.removed),
    ):
        if names:
            yield f"{what}: {', '.join(names)}"
    if rules.omitted:
        yield f"and {rules.omitted} more"


def _listeners(detail: Mapping[str, Any]) -> Iterator[str]:
    roles = dict(
        str(line).split(": ", 1) for line in (detail.get("engine") or {}).get("listeners", ())
    )
    for name, address in (detail.get("listeners") or {}).items():
        role = f": {roles[name]}" if name in roles else ""
        yield f"{name} {address}{role}"


def _audit(detail: Mapping[str, Any]) -> Iterator[str]:
    audit = (detail.get("engine") or {}).get("audit") or {}
    if not audit:
        return
    stands = "written" if audit["writable"] else f"NOT written: {audit['last_error']}"
    yield f"{(detail.get('files') or {}).get('audit', '')}, {stands}"
    yield (
        f"{audit['written_lines']} records since the start, {audit['queued_lines']} wait, "
        f"{audit['refused_lines']} refused, {audit['dropped_refusals']} dropped"
    )


def _state(detail: Mapping[str, Any]) -> Iterator[str]:
    engine = detail.get("engine") or {}
    state = engine.get("state") or {}
    if not state:
        return
    works = state["reachable"] and state["writable"]
    stands = "kept" if works else f"NOT kept: {state['last_error']}"
    yield f"{state['engine']}, {stands}; {state['tasks']} tasks, {engine['revocations']} revocations"
    yield from (str(warning) for warning in state["warnings"])


def _keys(entry: Mapping[str, Any]) -> str:
    age = entry["age_seconds"]
    known = "never fetched" if age is None else f"known {age:.0f} s ago"
    usable = "dropped, too old" if entry["stale"] else f"{entry['keys']} usable"
    return f"{entry['kind']} {entry['name']}: {usable}, {known}, {entry['from']}"


def _observing(entry: Mapping[str, Any]) -> str:
    what = f"{entry['scope']} {entry['name']}" if entry["name"] else "everything else"
    if not entry["active"]:
        return f"{what} ended {entry['until']}; it is enforced ({entry['owner']})"
    return f"{what} until {entry['until']}, then it is enforced ({entry['owner']})"


def healthcheck(
    *,
    address: Annotated[
        str, typer.Argument(help="`http://127.0.0.1:8282/readyz`, or a gRPC address.")
    ] = "http://127.0.0.1:8282/readyz",
    service: Annotated[str, typer.Option(help="gRPC service; empty: the whole node.")] = "",
) -> None:
    """Exit with 0 where the node may be asked, else with 1; for `HEALTHCHECK` of a container."""
    if address.startswith(("http://", "https://")):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(address, timeout=5) as answer:
                ready = answer.status == 200
        except urllib.error.HTTPError:
            ready = False
        except (OSError, ValueError) as error:
            raise UnavailableError(f"{address} cannot be reached: {error}") from error
    elif "://" in address and not address.startswith("unix://"):
        raise UsageError(f"{address}: give http://, unix:// or host:port")
    else:
        ready = Remote(address).healthy(service)
    if not ready:
        raise UnavailableError(f"{address} is not ready")


def version(
    *,
    output: Annotated[str, typer.Option("--output", "-o", help="text or json")] = "text",
) -> None:
    """Print the version and how the engine was built."""
    if output == "json":
        Show().json({"version": __version__, "build_profile": build_profile()})
    else:
        Show().line(f"authz {__version__} ({build_profile()})")
