"""One recorded decision, judged again, and the difference between its two answers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from authz.audit import Record
from authz.engine import Plan
from authz.errors import BundleError

__all__ = ["CATEGORIES", "Answer", "Category", "Judgement", "NotReplayed", "judge_record"]

Category = Literal["equal", "newly_permitted", "newly_held", "newly_denied", "other_change"]
"""Difference between the answers before and after."""

CATEGORIES: Final[tuple[Category, ...]] = (
    "newly_permitted",
    "newly_held",
    "newly_denied",
    "other_change",
)
"""Categories of changes, the most important first."""

_MAX_MESSAGE: Final = 400
_CALLS: Final = frozenset({"check", "batch_check", "ext_authz", "list", "explain", ""})


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer to a call."""

    outcome: str
    """`PERMIT`, `STEP_UP` or `DENY`, as judged."""
    code: str
    """Reason code. Empty: the reason, the tier and the policies depend on facts that the record lacks."""
    enforced: bool
    """False if `mode: observe` lets the call through."""
    tier: str
    """Effective tier."""
    kinds: tuple[str, ...]
    """Step-up kinds."""
    policies: tuple[str, ...]
    """Policies that determined the outcome."""

    @property
    def effect(self) -> str:
        """Outcome as the caller gets it: `PERMIT` if `mode: observe` lets the call through."""
        return self.outcome if self.enforced else "PERMIT"

    def document(self) -> dict[str, Any]:
        """Return the answer for JSON."""
        return {
            "outcome": self.outcome,
            "reason_code": self.code,
            "enforced": self.enforced,
            "tier": self.tier,
            "step_up_kinds": list(self.kinds),
            "policies": list(self.policies),
        }


@dataclass(frozen=True, slots=True)
class NotReplayed:
    """Reason for which a record has no second answer."""

    reason: str
    """Kind of the reason, for programs."""
    message: str
    """Message for people."""
    claim: str = ""
    """`never_admits` or `may_admit`: what the names in the record prove although facts are missing. Empty: nothing."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A decision before and after."""

    before: Answer | None
    """Answer before; `None` if the record has no answer."""
    after: Answer | None
    """Answer after. None: the record was not replayed."""
    category: Category
    """Difference; meaningless if the record was not replayed."""
    gap: NotReplayed | None
    """Reason for which the record was not replayed."""


def judge_record(record: Record, plan: Plan, against: Plan | None) -> Judgement:
    """Judge a record of a decision again.

    Args:
        record: Record of an audit log.
        plan: Bundle that judges.
        against: Bundle of the answer before; `None` if it is the recorded answer.
    """
    if (surface := _other_surface(record.fields)) != "":
        return _unjudged(NotReplayed("no_call", f"{surface}: no policy judged it"))
    moment = _moment(record.fields)
    if moment is None:
        return _unjudged(NotReplayed("facts_unreadable", "the record has no timestamp"))
    # Texts that can be erased stand apart from their places in the line.
    line = record.text
    if b'"salted:' in line:
        line = json.dumps(record.fields).encode()
    try:
        found = plan.replay(line, moment, against)
    except BundleError as error:
        # The reader of this command takes what the strict reader of the engine refuses, for example a number beyond 64 bits.
        text = error.diagnostics[0].what if error.diagnostics else str(error)
        return _unjudged(NotReplayed("record_unreadable", text[:_MAX_MESSAGE]))
    return _read(found)


def _read(found: Mapping[str, Any]) -> Judgement:
    """Read the answer of the engine about one record."""
    before, after = _answer(found.get("before")), _answer(found.get("after"))
    if found["status"] != "replayed" or before is None or after is None:
        claim = _claim(_answer(found.get("best")), _answer(found.get("worst")))
        return Judgement(before, None, "equal", _gap(found, claim))
    is_exact = found["is_exact"] is True
    category = _compare(before, after, is_exact=is_exact)
    differs_from_itself = found["is_same_bundle"] and category != "equal"
    if found["reproduced"] is False or differs_from_itself:
        text = "the bundle that judged gives another answer on the recorded facts: somebody changed the record, or another version wrote it"
        return Judgement(before, None, "equal", NotReplayed("not_reproduced", text))
    if not is_exact:
        after = Answer(after.outcome, "", after.enforced, "", (), ())
    return Judgement(before, after, category, None)


def _unjudged(gap: NotReplayed) -> Judgement:
    return Judgement(None, None, "equal", gap)


def _gap(found: Mapping[str, Any], claim: str) -> NotReplayed:
    reason = str(found.get("reason", "facts_unreadable"))
    message = str(found.get("message", "the record has no answer"))
    return NotReplayed(reason, message[:_MAX_MESSAGE], claim)


def _claim(best: Answer | None, worst: Answer | None) -> str:
    if best is None or worst is None:
        return ""
    return "may_admit" if best.effect == "PERMIT" else "never_admits"


def _compare(before: Answer, after: Answer, *, is_exact: bool) -> Category:
    if before.effect != after.effect:
        changes: dict[str, Category] = {
            "PERMIT": "newly_permitted",
            "STEP_UP": "newly_held",
            "DENY": "newly_denied",
        }
        return changes[after.effect]
    return "equal" if before == after or not is_exact else "other_change"


def _answer(value: Any) -> Answer | None:
    if not isinstance(value, dict) or value.get("outcome") not in {"PERMIT", "STEP_UP", "DENY"}:
        return None
    return Answer(
        outcome=value["outcome"],
        code=str(value.get("reason_code", "")),
        enforced=value.get("enforced") is not False,
        tier=str(value.get("tier", "")),
        kinds=tuple(sorted(map(str, value.get("step_up_kinds", ())))),
        policies=tuple(map(str, value.get("policies", ()))),
    )


def _other_surface(fields: Mapping[str, Any]) -> str:
    """Return the surface of a record without facts that is not of a call; empty for a call."""
    given, labels = fields.get("input"), fields.get("labels")
    surface = labels.get("surface") if isinstance(labels, dict) else None
    has_facts = isinstance(given, dict) and "facts" in given
    return surface if isinstance(surface, str) and not has_facts and surface not in _CALLS else ""


def _moment(fields: Mapping[str, Any]) -> int | None:
    """Return the time of the decision in milliseconds: that of its facts, since time never goes back in a session."""
    given = fields.get("input")
    facts = given.get("facts") if isinstance(given, dict) else None
    stated = facts.get("time") if isinstance(facts, dict) else None
    for text in (stated, fields.get("timestamp")):
        if isinstance(text, str):
            try:
                moment = datetime.fromisoformat(text)
            except ValueError:
                continue
            since = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
            return since.days * 86_400_000 + since.seconds * 1_000 + since.microseconds // 1_000
    return None
