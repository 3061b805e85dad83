"""Errors of the extension, raised again as errors of `authz.errors`."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from authz import _native
from authz.errors import ApiError, BundleError, EngineError, TrustError
from authz.model import Diagnostic, Severity

__all__ = [
    "api_errors",
    "bundle_errors",
    "diagnostics_of",
    "engine_errors",
    "trust_errors",
    "with_sources",
]

_MAX_SHOWN: Final = 1000
_MAX_SOURCE: Final = 10_000
_SHOWN_FILES: Final = (".yaml", ".yml", ".cedar")


@contextmanager
def bundle_errors(files: Mapping[str, bytes] | None = None) -> Iterator[None]:
    """Raise a refusal of the bundle as `BundleError`, with each diagnostic.

    Args:
        files: Contents of the bundle's files, for the lines that the diagnostics are about.
    """
    try:
        yield
    except _native.BundleError as error:
        found = diagnostics_of(error.diagnostics)
        raise BundleError(with_sources(found, files or {})) from error


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


def with_sources(
    diagnostics: Iterable[Diagnostic], files: Mapping[str, bytes]
) -> tuple[Diagnostic, ...]:
    """Add to each diagnostic the line that it is about, where the file is known."""
    return tuple(_with_source(diagnostic, files.get(diagnostic.file)) for diagnostic in diagnostics)


def _with_source(diagnostic: Diagnostic, content: bytes | None) -> Diagnostic:
    # Lines of a recipient list may be personal data, which a log should not get.
    if content is None or not diagnostic.line or not diagnostic.file.endswith(_SHOWN_FILES):
        return diagnostic
    lines = content.split(b"\n", diagnostic.line)
    if len(lines) < diagnostic.line:
        return diagnostic
    line = lines[diagnostic.line - 1][:_MAX_SOURCE].decode(errors="replace")
    return replace(diagnostic, source=line)


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
            replacement=_replacement(item.get("replacement")),
        )
        for item in items[:_MAX_SHOWN]
    )


def _replacement(item: Mapping[str, Any] | None) -> tuple[str, str] | None:
    return None if item is None else (str(item["old"]), str(item["new"]))
