"""Tables of the extension, which commands show and propose from."""

from __future__ import annotations

import json
from typing import Any

import pytest

from authz.engine import bundle_schema, effect_table, spiffe_covers


def words(schema: dict[str, Any], definition: str) -> list[str]:
    """Return the words of an enumeration in the bundle's schema."""
    return [entry["const"] for entry in schema["$defs"][definition]["oneOf"]]


def test_effects_and_tiers_are_those_that_a_bundle_may_name() -> None:
    """A word that the schema lacks would be proposed, and then refused."""
    schema, table = json.loads(bundle_schema()), effect_table()
    assert list(table.tiers) == words(schema, "TierWord")
    assert list(table.effects) == words(schema, "EffectWord")
    assert set(table.default_tiers.values()) <= set(table.tiers)


def test_the_defaults_of_tiers() -> None:
    """As docs/reference/bundle names them; `low` is only ever written."""
    assert dict(effect_table().default_tiers) == {
        "read": "standard",
        "write": "standard",
        "delete": "high",
        "export": "high",
        "execute": "high",
        "grant": "critical",
    }


def test_effects_are_put_in_order() -> None:
    """Other words are left out."""
    assert effect_table().in_order({"grant", "read", "nonsense"}) == ("read", "grant")


@pytest.mark.parametrize(
    ("pattern", "spiffe_id", "covers"),
    [
        ("spiffe://a.example/ns/x/sa/y", "spiffe://a.example/ns/x/sa/y", True),
        ("spiffe://a.example/ns/*/sa/y", "spiffe://a.example/ns/x/sa/y", True),
        ("spiffe://a.example/ns/*", "spiffe://a.example/ns/x/sa/y", False),
        ("spiffe://a.example/ns/x/sa/y", "spiffe://a.example/ns/x/sa/z", False),
        ("spiffe://a.example/ns/x/sa/*", "spiffe://b.example/ns/x/sa/y", False),
    ],
)
def test_a_pattern_stands_for_whole_segments(pattern: str, spiffe_id: str, *, covers: bool) -> None:
    """As a role's entry does in the kernel."""
    assert spiffe_covers(pattern, spiffe_id) is covers
