"""Tables of the extension: its build, its reason codes, and the effects of operations."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from authz import _native

__all__ = ["EffectTable", "build_profile", "effect_table", "reason_table"]


@dataclass(frozen=True, slots=True)
class EffectTable:
    """Effects and tiers of operations, as bundles name them."""

    default_tiers: Mapping[str, str]
    """Effects in order; each has the tier of an operation whose rule names none."""
    tiers: tuple[str, ...]
    """Tiers, the lowest first."""

    def rank(self, tier: str) -> int:
        """Return the position of a tier, the lowest first; raises ValueError for another word."""
        return self.tiers.index(tier)

    def in_order(self, effects: Collection[str]) -> tuple[str, ...]:
        """Return the effects among these words, in order."""
        return tuple(effect for effect in self.default_tiers if effect in effects)

    @property
    def effects(self) -> tuple[str, ...]:
        """Effects in order."""
        return tuple(self.default_tiers)


@cache
def effect_table() -> EffectTable:
    """Return the effects and tiers of operations."""
    table = json.loads(_native.effect_table())
    return EffectTable(dict(table["effects"]), tuple(table["tiers"]))


def build_profile() -> str:
    """Return how the extension was built: `release`, `guided` (PGO), or `debug`, whose speed says nothing."""
    return _native.build_profile()


def reason_table() -> list[dict[str, Any]]:
    """Return one row for each reason code: its public code, next action, retry advice and messages."""
    rows: list[dict[str, Any]] = json.loads(_native.reason_table())
    return rows
