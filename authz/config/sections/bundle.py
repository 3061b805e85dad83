"""`bundle`: the folder of policies and facts."""

from typing import Any

from authz.config.types import FilePath, Strict, later

__all__ = ["Bundle"]


class Bundle(Strict):
    """The folder of policy and facts."""

    path: FilePath
    """Folder of the bundle."""
    watch: bool = True
    """Load again when a file of the bundle or a trust source changes."""
    require_manifest: bool = False
    """Refuse a bundle without `MANIFEST.sha256`, which `authz bundle seal` writes. A bundle with one must match it in any case."""
    source: Any = later("Where signed bundles are fetched from.")
    keys: Any = later("Keys that bundles must be signed with.")
