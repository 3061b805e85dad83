"""Differences between the policies of two bundles."""

from collections.abc import Mapping

from authz.engine import PolicyDescription

__all__ = ["changed_policies"]


def changed_policies(
    old: Mapping[str, PolicyDescription], new: Mapping[str, PolicyDescription]
) -> dict[str, list[str]]:
    """Return the ids that are `added`, `removed` and `changed`; layout and comments change no policy."""
    return {
        "added": sorted(set(new) - set(old)),
        "removed": sorted(set(old) - set(new)),
        "changed": sorted(id_ for id_ in set(old) & set(new) if old[id_].digest != new[id_].digest),
    }
