"""Names the kinds of parts of a card for the templates, because templates cannot test types."""

from authz.approvals.card import Flag, Inert, Part, Plain

__all__ = ["part_kind"]


def part_kind(part: Part) -> str:
    """Return `plain`, `inert`, `flag` or `time`."""
    if isinstance(part, Plain):
        return "plain"
    if isinstance(part, Inert):
        return "inert"
    return "flag" if isinstance(part, Flag) else "time"
