"""Hooks of `json.loads` for JSON that every reader understands alike."""

from typing import Any

__all__ = ["refuse_constant", "unique_members"]


def unique_members(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the members of an object (`object_pairs_hook`).

    Raises:
        ValueError: A member is given twice.
    """
    value = dict(members)
    if len(value) != len(members):
        message = "a member is given twice"
        raise ValueError(message)
    return value


def refuse_constant(number: str) -> float:
    """Refuse NaN and infinity, which are not JSON (`parse_constant`).

    Raises:
        ValueError: Always.
    """
    message = f"{number} is not a JSON number"
    raise ValueError(message)
