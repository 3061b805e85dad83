"""Errors of the extension, raised again as errors of `authz.errors`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from authz import _native
from authz.errors import ApiError, BundleError, EngineError, TrustError
from authz.model import Diagnostic, Severity

__all__ = ["api_errors", "bundle_errors", "diagnostics_of", "engine_errors", "trust_errors"]

_MAX_SHOWN: Final = 1000


@contextmanager
def bundle_errors() -> Iterator[None]:
    """Raise a refusal of the bundle as `BundleError`, with each diagnostic."""
    try:
        yield
    except _native.BundleError as error:
        raise BundleError(diagnostics_of(error.diagnostics)) from error


@contextmanager
def trust_errors() -> Iterator[None]:
    """Raise a refusal of trust sources as `TrustError`, with each diagnostic."""
    try:
        yield
    except _native.TrustError as error:
        raise TrustError(diagnostics_of(str(error))) from error


@contextmanager
def engine_errors() -> Iterator[None]:
    """Raise a failure of the engine or its store as `EngineError`."""
    try:
        yield
    except _native.EngineError as error:
        raise EngineError(str(error)) from error


@contextmanager
def api_errors() -> Iterator[None]:
    """Raise a refused API call as `ApiError`, with reason code and gRPC code."""
    try:
        yield
    except _native.ApiError as error:
        raise ApiError(error.reason_code, error.grpc_code, error.message) from error


def diagnostics_of(text: str) -> tuple[Diagnostic, ...]:
    """Read the extension's JSON list of diagnostics; at most 1,000 are kept."""
    try:
        items = json.loads(text)
    except ValueError:
        return tuple(Diagnostic(line) for line in text.splitlines() if line.strip())
    return tuple(
        Diagnostic(
            what=str(item.get("what", "")),
            file=str(item.get("file", "")),
            line=int(item.get("line") or 0),
            column=int(item.get("column") or 0),
            fix=str(item.get("fix", "")),
            severity=Severity(item.get("severity", "error")),
            code=str(item.get("code", "")),
        )
        for item in items[:_MAX_SHOWN]
    )
