"""Records of refused loads in the audit log."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from authz.engine import bundle_digest
from authz.errors import AuthzError
from authz.model import BundleFiles, Diagnostic, Severity

__all__ = ["RefusalLog", "RefusedLoads"]

_MOST_RECORDED: Final = 64
_QUOTED: Final = re.compile(r"`[^`]*(?:`|$)")


class RefusalLog(Protocol):
    """The part of the engine that records refused loads."""

    def record_refused_load(self, load: Mapping[str, Any]) -> bool:
        """Record a refused load. Returns False if the log did not accept the record."""


class RefusedLoads:
    """Records refused loads, each once until a load succeeds.

    A loader that tries a refused bundle again and again therefore writes one record. Not more than 64 different refusals are recorded
    between two loads; the next record has the number of the others.

    Args:
        log: Takes the records.
    """

    def __init__(self, log: RefusalLog) -> None:
        self._log = log
        self._recorded: set[bytes] = set()
        self._unrecorded = 0

    def note(
        self, error: BaseException, diagnostics: Sequence[Diagnostic], bundle: BundleFiles | None
    ) -> None:
        """Record a refusal, if it is new.

        Args:
            error: Cause of the refusal.
            diagnostics: Diagnostics of the error.
            bundle: Files of the refused bundle. `None`: they could not be read.
        """
        refused = {
            "digest": bundle_digest(bundle) if bundle is not None else "",
            "errors": _errors(error, diagnostics),
        }
        key = hashlib.sha256(json.dumps(refused).encode()).digest()
        is_new = key not in self._recorded and len(self._recorded) < _MOST_RECORDED
        if is_new and self._log.record_refused_load({**refused, "unrecorded": self._unrecorded}):
            self._recorded.add(key)
            self._unrecorded = 0
        else:
            self._unrecorded += 1

    def clear(self) -> None:
        """Record the same refusals again from now on: a load succeeded."""
        self._recorded.clear()


def _errors(error: BaseException, diagnostics: Sequence[Diagnostic]) -> list[dict[str, str]]:
    if not isinstance(error, AuthzError):
        # The text of an unexpected exception may have values of any kind.
        message = f"the load failed inside the server: {type(error).__name__}"
        return [{"at": "", "code": "", "message": message}]
    return [
        {
            "at": f"{one.file}:{one.line}" if one.line else one.file,
            "code": one.code,
            # Messages quote words of files, which may hold a secret by mistake; nobody can erase it from the log.
            "message": _QUOTED.sub("`…`", one.what),
        }
        for one in diagnostics
        if one.severity is Severity.ERROR
    ]
