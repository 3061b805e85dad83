"""`authz serve`: run a node."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from authz.cli.options import ConfigFile, Sets, configuration, flags
from authz.config import is_key_variable
from authz.errors import ConfigError, UsageError
from authz.files import check_trusted
from authz.model import Diagnostic
from authz.server import Node
from authz.telemetry import make_logger

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("serve")(serve)


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
    """Run a node until SIGTERM or SIGINT. SIGHUP reloads the bundle and the keys."""
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
    if config is None and not named and not sets and not _has_variables():
        raise UsageError(
            "serve needs a configuration: --config FILE. For development, "
            "`authz keys make dev --bundle BUNDLE` writes dev/config.yaml"
        )
    settings = configuration(config, sets, named)
    if config is not None:
        _check_place(config)
    log = make_logger(settings.log, sys.stderr)
    Node(settings, log).run()


def _has_variables() -> bool:
    """Return whether the environment sets keys of the configuration."""
    return any(is_key_variable(name) for name in os.environ)


def _check_place(config: Path) -> None:
    """Refuse a configuration file that other users could replace: it decides which callers the node trusts."""
    try:
        check_trusted(config)
    except OSError as error:
        raise ConfigError((Diagnostic(f"{error.strerror}.", str(config)),)) from error
