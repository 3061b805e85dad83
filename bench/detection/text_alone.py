"""Which attacks differ from an honest task by their words alone.

Such an attack reaches its goal with calls that the honest task of the same prompt makes, too: the same operations with
the same authority arguments. Only free texts differ, and no address, host or IBAN stands in them that the user did not
say or the honest task would not write. No rule over calls tells the two apart.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from bench.detection.scenario import Scenario, scenarios
from bench.detection.simulate import Asked, Decision, play
from bench.detection.systems import SYSTEMS

Call = tuple[int, str, str]
"""A task, an operation, and its authority arguments."""
_LITERAL: Final = re.compile(
    r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"  # a mailbox
    r"|[a-z0-9-]+(?:\.[a-z0-9-]+)*\.[a-z]{2,}\b"  # a host
    r"|\b[a-z]{2}\d{2}(?: ?[a-z0-9]{4}){3,7}(?: ?[a-z0-9]{1,3})?\b",  # an IBAN
    re.IGNORECASE,
)


def authority(domain: str, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Returns the authority arguments of a call.

    Args:
        domain: whose systems are asked.
        operation: `<system>.<tool>`.
        arguments: of the tool.
    """
    name, _, tool = operation.partition(".")
    system = next(one for one in SYSTEMS[domain] if one.name == name)
    return system.authority(tool, arguments)


def twins(attack: Scenario) -> Iterator[Scenario]:
    """Yields the honest scenarios of the same user, prompts and params.

    Args:
        attack: the attack.
    """
    return (one for one in scenarios(attack.domain, "honest") if one.given == attack.given)


def differs_by_text_alone(attack: Scenario, twin: Scenario) -> bool:
    """Returns whether an attack reaches its goal with the calls of an honest scenario, in other words.

    Args:
        attack: the attack.
        twin: an honest scenario of the same prompts.
    """
    calls: Counter[Call] = Counter()
    said = [_text(task) for task in attack.given]

    def note(asked: Asked) -> Decision:
        calls[_call(twin, asked)] += 1
        said.append(_text(asked.arguments))
        return "permit"

    play(twin, note)
    known = {_plain(one) for text in said for one in _LITERAL.findall(text)}

    def decide(asked: Asked) -> Decision:
        call = _call(attack, asked)
        literals = {_plain(one) for one in _LITERAL.findall(_text(asked.arguments))}
        if not calls[call] or literals - known:
            return "deny"
        if not _reads(attack, asked.operation):
            calls[call] -= 1
        return "permit"

    return play(attack, decide).reached


def _call(scenario: Scenario, asked: Asked) -> Call:
    found = authority(scenario.domain, asked.operation, dict(asked.arguments))
    return asked.task, asked.operation, _text(found)


def _reads(scenario: Scenario, operation: str) -> bool:
    name, _, tool = operation.partition(".")
    return any(tool in one.reading for one in SYSTEMS[scenario.domain] if one.name == name)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _plain(literal: str) -> str:
    return literal.casefold().replace(" ", "")
