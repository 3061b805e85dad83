"""`shadow`: a second bundle beside the serving bundle."""

from collections.abc import Iterator
from pathlib import Path

from authz.config.findings import Finding
from authz.config.types import FilePath, Strict

__all__ = ["Shadow", "shadow_findings"]


class Shadow(Strict):
    """A second bundle, which judges the same calls as the bundle that serves, and changes no answer."""

    bundle: FilePath
    """Folder of the bundle. It is loaded again when `bundle` is."""


def shadow_findings(shadow: Shadow | None, bundle: str) -> Iterator[Finding]:
    """Yield an error if the shadow bundle is the serving bundle.

    Args:
        shadow: The section, if it is given.
        bundle: Folder of the bundle that serves.
    """
    if shadow is not None and Path(shadow.bundle) == Path(bundle):
        yield Finding(
            ("shadow", "bundle"),
            "`shadow.bundle` is the folder of the bundle that serves, so every decision would be equal.",
            "Name the folder of the next version, or remove `shadow`.",
        )
