"""Refusals of a load: their diagnostics."""

from pathlib import Path
from typing import Final

from authz.errors import AuthzError, BundleError, ConfigError, TrustError
from authz.files import check_way
from authz.model import Diagnostic
from authz.trust import SourceKey

__all__ = ["check_bundle_way", "diagnostics_of", "older_bundle"]

_MAX_DIAGNOSTICS: Final = 100
_MAX_TEXT: Final = 1000


def diagnostics_of(error: BaseException) -> tuple[Diagnostic, ...]:
    """Return the diagnostics of a refused load; of an unexpected exception, one that points to the log."""
    if isinstance(error, (BundleError, ConfigError, TrustError)):
        return error.diagnostics[:_MAX_DIAGNOSTICS]
    if isinstance(error, AuthzError):
        return (Diagnostic(str(error)),)
    # The API takes UTF-8 only, and the name of a file may be none.
    text = f"{type(error).__name__}: {error}".encode(errors="backslashreplace").decode()
    what = f"the reload failed inside the server: {text[:_MAX_TEXT].removesuffix(': ')}."
    return (Diagnostic(what, fix="See the log."),)


def older_bundle(key: SourceKey, place: str, *, is_known: bool) -> Diagnostic:
    """Return the refusal of a trust bundle that is older than an earlier one in use.

    Args:
        key: The trust domain.
        place: The source of the bundle.
        is_known: The store has been read, so that the age of the bundle is known.
    """
    if not is_known:
        what = f"whether the bundle of {key} is older than an earlier one in use is not known yet."
        fix = "It is tried again once the store of tasks can be read."
        return Diagnostic(what, place, fix=fix)
    what = f"the bundle of {key} has a lower `spiffe_sequence` than an earlier one in use, or lacks `spiffe_sequence`."
    fix = (
        "The bundle that serves stays in use. If the publisher started to count anew, raise "
        f"`trust.domains.{key.name}.bundle.sequence_epoch` and restart."
    )
    return Diagnostic(what, place, fix=fix)


def check_bundle_way(folder: Path) -> None:
    """Refuse a bundle that everybody could replace: its author decides what is permitted."""
    try:
        check_way(folder / "bundle.yaml", strict=False)
    except OSError as error:
        # A missing folder is reported where it is read.
        if isinstance(error, PermissionError):
            raise BundleError((Diagnostic(f"{error.strerror}.", str(folder)),)) from error
