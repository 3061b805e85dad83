"""Builds the cards of ordinary calls and of calls that were tampered with, and writes `bench/results/cards.json`.

python -m bench.cards.measure                    all domains
python -m bench.cards.measure --domain banking   prints the figures of a domain, and writes nothing
python -m bench.cards.measure --misses           names each call that was tampered with and has no warning
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from authz.approvals.card import build_card
from authz.approvals.lookalikes import same_value
from authz.approvals.parts import Card
from authz.engine import build_profile
from bench import machine
from bench.cards.operators import OPERATORS, Operator, mutants
from bench.cards.ordinary import OrdinaryCall, ordinary_calls
from bench.detection.scenario import DOMAINS, digest

ROOT: Final = Path(__file__).resolve().parents[2]
_OTHERS: Final = 5
RESULTS: Final = ROOT / "bench" / "results" / "cards.json"


def card_of(
    call: OrdinaryCall, arguments: Mapping[str, Any], last: Mapping[str, Any] | None
) -> Card:
    """Return the card of a call with other arguments.

    Args:
        call: The call.
        arguments: The arguments.
        last: Arguments of the last approved call.
    """
    made = call.approval(arguments, last)
    return build_card(made, call.references(made), 0.0)


def is_told(card: Card, ordinary: Card) -> bool:
    """Return whether a card warns where that of the ordinary call does not, or cannot be approved as it is shown where that can."""
    is_cut = card.hidden_bytes > ordinary.hidden_bytes
    return is_cut or bool(card.cannot_be_shown) or bool(set(card.flags) - set(ordinary.flags))


def measure_ordinary(calls: Sequence[OrdinaryCall]) -> dict[str, Any]:
    """Count the ordinary cards with a warning, and those that need the whole view."""
    found: dict[str, Any] = {
        "cards": len(calls),
        "asked": sum(bool(call.kinds) for call in calls),
        "with_last_approved": sum(call.last is not None for call in calls),
    }
    for name, cards in (
        ("flagged", [(call, card_of(call, call.arguments, call.last)) for call in calls]),
        (
            "flagged_repeated",
            [(call, card_of(call, call.arguments, call.arguments)) for call in calls],
        ),
    ):
        flagged = [(call, card) for call, card in cards if card.flags]
        found[name] = len(flagged)
        found[f"{name}_which"] = [
            f"{call.name}: {', '.join(sorted(flag.code for flag in card.flags))}"
            for call, card in flagged
        ]
    pairs = list(_pairs(calls))
    flagged = [
        (call, card)
        for call, other in pairs
        if (card := card_of(call, call.arguments, other)).flags
    ]
    found["pairs"] = len(pairs)
    found["flagged_pairs"] = len(flagged)
    found["flagged_pairs_which"] = [
        f"{call.name}: {', '.join(sorted(flag.code for flag in card.flags))}"
        for call, card in flagged
    ]
    found["need_whole_view"] = sum(
        card_of(call, call.arguments, call.last).needs_whole_view for call in calls
    )
    return found


def _pairs(calls: Sequence[OrdinaryCall]) -> Iterator[tuple[OrdinaryCall, Mapping[str, Any]]]:
    """Yield each call with the arguments of up to `_OTHERS` other calls of its operation in its domain, as the last approved ones."""
    for call in calls:
        others = [
            one.arguments
            for one in calls
            if one.asked.operation == call.asked.operation
            and one.bundle is call.bundle
            and one.arguments != call.arguments
        ]
        step = max(len(others) // _OTHERS, 1)
        yield from ((call, other) for other in others[::step][:_OTHERS])


def measure_operator(operator: Operator, calls: list[OrdinaryCall]) -> dict[str, Any]:
    """Count the cards of tampered calls that warn: with the references of the corpus, and where the call itself was approved before."""
    told = referenced = told_referenced = repeated = 0
    misses: list[str] = []
    missed_repeated: list[str] = []
    pairs = list(mutants(operator, calls))
    for call, changed in pairs:
        is_referenced = not operator.needs_reference or has_reference(call, changed)
        found = is_told(card_of(call, changed, call.last), card_of(call, call.arguments, call.last))
        told += found
        referenced += is_referenced
        told_referenced += found and is_referenced
        if is_referenced and not found:
            misses.append(call.name)
        ordinary = card_of(call, call.arguments, call.arguments)
        if is_told(card_of(call, changed, call.arguments), ordinary):
            repeated += 1
        else:
            missed_repeated.append(call.name)
    return {
        "operator": operator.name,
        "about": operator.about,
        "needs_reference": operator.needs_reference,
        "cards": len(pairs),
        "told": told,
        "referenced": referenced,
        "told_referenced": told_referenced,
        "told_repeated": repeated,
        "misses": misses,
        "misses_repeated": missed_repeated,
    }


def has_reference(call: OrdinaryCall, changed: Mapping[str, Any]) -> bool:
    """Return whether the value that was there before the change is known from elsewhere."""
    before, after = _leaves(call.arguments), _leaves(changed)
    gone = [value for pointer, value in before.items() if after.get(pointer) != value]
    made = call.approval(call.arguments, call.last)
    known = [*(one.value for one in call.references(made).recipients), *call.earlier]
    known += list(_leaves(call.last).values()) if call.last is not None else []
    return any(same_value(value, one) for value in gone for one in known)


def _leaves(value: Any, pointer: str = "") -> dict[str, str]:
    if isinstance(value, Mapping):
        return {
            key: text
            for name, member in value.items()
            for key, text in _leaves(member, f"{pointer}/{name}").items()
        }
    if isinstance(value, list):
        return {
            key: text
            for place, member in enumerate(value)
            for key, text in _leaves(member, f"{pointer}/{place}").items()
        }
    return {pointer: value if isinstance(value, str) else json.dumps(value)}


def measure(names: Sequence[str]) -> dict[str, Any]:
    """Measure the cards of some domains.

    Args:
        names: Of the domains.
    """
    calls = [call for name in names for call in ordinary_calls(name)]
    return {
        "ordinary": measure_ordinary(calls),
        "operators": [measure_operator(operator, calls) for operator in OPERATORS],
    }


def table(found: Mapping[str, Any]) -> list[str]:
    """Return the figures as a table.

    Args:
        found: What `measure` returned.
    """
    ordinary = found["ordinary"]
    lines = [
        "| ordinary calls | cards | with a warning |",
        "|---|--:|--:|",
        f"| compared with the user's last call of the operation | {ordinary['cards']} | {ordinary['flagged']} |",
        f"| compared with another call of the operation | {ordinary['pairs']} | {ordinary['flagged_pairs']} |",
        f"| compared with the same call | {ordinary['cards']} | {ordinary['flagged_repeated']} |",
        "",
        "| change | cards | warned, original known | warned, call approved before | warned in all |",
        "|---|--:|--:|--:|--:|",
    ]
    for row in found["operators"]:
        known = "not needed"
        if row["needs_reference"]:
            known = f"{row['told_referenced']} of {row['referenced']}"
        lines.append(
            f"| {row['about']} | {row['cards']} | {known} | {row['told_repeated']} | {row['told']} |"
        )
    return lines


def main() -> int:
    """Measure, print and write; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.cards.measure",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--domain", action="append", choices=DOMAINS, help="only this one")
    parser.add_argument("--misses", action="store_true", help="name calls without a warning")
    parser.add_argument("--results", type=Path, help="file for the results")
    arguments = parser.parse_args()
    found = measure(arguments.domain or DOMAINS)
    print("\n".join(table(found)))
    for name in ("flagged_which", "flagged_repeated_which", "flagged_pairs_which"):
        for line in found["ordinary"][name]:
            print(f"ordinary, and has a warning: {line}")
    if arguments.misses:
        for row in found["operators"]:
            for name in dict.fromkeys(row["misses"] + row["misses_repeated"]):
                print(f"{row['operator']}: no warning: {name}")
    file = arguments.results or (None if arguments.domain else RESULTS)
    if file is not None:
        written = {
            "machine": machine.facts(ROOT, build_profile()),
            "corpus": digest(),
            **found,
        }
        file.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n")
        print(f"results: {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
