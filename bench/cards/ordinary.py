"""Ordinary calls: those of the honest tasks of `bench/detection` that have a destination or an object, or that a person must answer."""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from authz.approvals.card import CardReferences
from authz.approvals.lookalikes import RecipientIndex, ValueKind, kind_of, same_value
from authz.bundle import compile_bundle, read_folder
from authz.model import BundleFiles
from authz_client.v1 import approvals_pb2
from bench.detection.judge import ISSUER, NOW_MS, agent
from bench.detection.measure import run
from bench.detection.reports import Reports
from bench.detection.scenario import FOLDER, Domain, Scenario, domain, scenarios
from bench.detection.simulate import Asked
from bench.detection.static import facts_of


@dataclass(frozen=True, slots=True)
class DestinationRule:
    """`destination` of an operation."""

    pointers: tuple[str, ...]
    when_absent: str


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """One entry of `objects`."""

    pointers: tuple[str, ...]
    role: str
    collection: str
    currency: str
    scale: int


@dataclass(frozen=True, slots=True)
class OperationFacts:
    """Facts of a bundle about an operation."""

    effects: tuple[str, ...]
    destination: DestinationRule | None
    objects: tuple[ObjectFacts, ...]
    resource: tuple[str, str] | None
    """Collection, and the pointer of the id."""


@dataclass(frozen=True)
class Bundle:
    """A domain with the facts of its bundle."""

    domain: Domain
    files: BundleFiles
    rules: tuple[tuple[str, OperationFacts], ...]
    lists: Mapping[str, tuple[str, ...]]

    @cached_property
    def index(self) -> RecipientIndex:
        """Its recipient lists."""
        return RecipientIndex(self.lists)

    def facts(self, operation: str) -> OperationFacts | None:
        """Return the facts about an operation."""
        return next((facts for match, facts in self.rules if fnmatchcase(operation, match)), None)

    def list_of(self, value: str) -> str:
        """Return the recipient list that has a value; empty: none."""
        for name, entries in self.lists.items():
            if any(same_value(value, entry) for entry in entries):
                return name
        return ""


@dataclass(frozen=True)
class OrdinaryCall:
    """A call of an honest task, and all that its card is built from."""

    bundle: Bundle
    scenario: Scenario
    asked: Asked
    facts: OperationFacts
    kinds: tuple[str, ...]
    """Step-up kinds; empty: no person is asked."""
    destination_class: str
    earlier: tuple[str, ...]
    """Values of earlier calls of the task."""
    last: Mapping[str, Any] | None
    """Arguments of the user's last call of the operation, in an earlier task; None: there is none."""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Scenario and number of the step."""
        return f"{self.scenario.id}:{self.asked.number}"

    def approval(
        self, arguments: Mapping[str, Any], last: Mapping[str, Any] | None
    ) -> approvals_pb2.Approval:
        """Return the approval of the call with other arguments.

        Args:
            arguments: The arguments.
            last: Arguments of the last approved call.
        """
        user = self.scenario.user
        made = approvals_pb2.Approval(
            id=f"{self.name}-1",
            decision_id=self.name,
            operation=self.asked.operation,
            digest=b"0" * 32,
            kinds=self.kinds or ("approve",),
            status=approvals_pb2.APPROVAL_STATUS_PENDING,
            arguments_json=_json(arguments),
            task=self.scenario.id,
            subject=f"{ISSUER}/{user}",
            agents=[agent(self.bundle.domain)],
            template=self.scenario.template_of(self.asked.task),
            effects=self.facts.effects,
        )
        made.created_at.FromMilliseconds(NOW_MS + self.asked.at * 1000)
        if self.facts.resource is not None:
            collection, pointer = self.facts.resource
            ids = [value.removeprefix("/") for value in values_at(arguments, pointer)]
            made.resource = "/".join([collection, *ids])
        for value in self._destinations(arguments):
            listed = self.bundle.list_of(value)
            made.destinations.add(
                value=value,
                destination_class=self.destination_class,
                host=value.rpartition("@")[2] if "@" in value else "",
                recipient_list=listed,
                origin=self._origin(value),
            )
        for one in self.facts.objects:
            currency = next(iter(values_at(arguments, one.currency)), "") if one.currency else ""
            for pointer in one.pointers:
                for value in values_at(arguments, pointer):
                    made.objects.add(
                        role=one.role,
                        pointer=pointer,
                        collection=one.collection,
                        value_json=value if one.role == "amount" else json.dumps(value),
                        origin=self._origin(value),
                        currency=currency,
                    )
        made.earlier_values.extend(self.earlier)
        if last is not None:
            made.last_approved.arguments_json = _json(last)
            made.last_approved.approved_at.FromMilliseconds(NOW_MS - 86_400_000)
        return made

    def references(self, made: approvals_pb2.Approval) -> CardReferences:
        """Return the references of a card: lists of the bundle, and scales of amounts."""
        values = [one.value for one in made.destinations]
        values += [json.loads(one.value_json) for one in made.objects if one.role != "amount"]
        values += [str(value) for value in _scalars(json.loads(made.arguments_json))]
        scales = {
            pointer: one.scale
            for one in self.facts.objects
            if one.role == "amount"
            for pointer in one.pointers
        }
        return CardReferences(self.bundle.index.near(map(str, values)), scales)

    def _destinations(self, arguments: Mapping[str, Any]) -> Iterator[str]:
        rule = self.facts.destination
        if rule is None:
            return
        found = [
            _canonical(value)
            for pointer in rule.pointers
            for value in values_at(arguments, pointer)
        ]
        yield from found or ([rule.when_absent] if rule.when_absent else [])

    def _origin(self, value: str) -> str:
        given = [self.scenario.prompt, *self.scenario.params.values()]
        given += [
            text for one in self.scenario.later for text in (one.prompt, *one.params.values())
        ]
        plain = re.sub(r"\s", "", " ".join(given)).casefold()
        if re.sub(r"\s", "", value).casefold() in plain:
            return "named"
        return "known" if self.bundle.list_of(value) else "unknown"


def ordinary_calls(name: str) -> list[OrdinaryCall]:
    """Return the ordinary calls of a domain: a careless approver agrees to each step that is held.

    Args:
        name: Of the domain.
    """
    bundle = read_bundle(name)
    plan = compile_bundle(bundle.files, {}, NOW_MS).plan
    reports = Reports.of(bundle.files) or None
    last: dict[tuple[str, str], Mapping[str, Any]] = {}
    found: list[OrdinaryCall] = []
    for scenario in scenarios(name, "honest"):
        earlier: list[str] = []
        task = 0
        here: dict[tuple[str, str], Mapping[str, Any]] = {}
        for answer in run(plan, scenario, careless=True, reports=reports).answers:
            asked = answer.asked
            if asked.task != task:
                task, earlier = asked.task, []
            facts = bundle.facts(asked.operation)
            if facts is None:
                continue
            held = answer.held
            call = OrdinaryCall(
                bundle=bundle,
                scenario=scenario,
                asked=asked,
                facts=facts,
                kinds=held.kinds if held else (),
                destination_class=answer.destination_class,
                earlier=tuple(earlier),
                last=last.get((scenario.user, asked.operation)),
                arguments=asked.arguments,
            )
            made = call.approval(asked.arguments, None)
            if held or made.destinations or made.objects:
                found.append(call)
            here[scenario.user, asked.operation] = asked.arguments
            values = [one.value for one in made.destinations]
            values += [json.loads(one.value_json) for one in made.objects if one.role != "amount"]
            earlier += map(str, values)
        last |= here
    return found


def read_bundle(name: str) -> Bundle:
    """Read a domain's bundle as far as cards need it.

    Args:
        name: Of the domain.
    """
    files = read_folder(FOLDER / name / "bundle")
    rules: list[tuple[str, OperationFacts]] = []
    lists: dict[str, tuple[str, ...]] = {}
    for path, content in sorted(files.files.items()):
        facts = facts_of(path, content) or {}
        rules += [(rule["match"], _facts(rule)) for rule in facts.get("classify") or []]
        for list_name, of in (facts.get("recipient_lists") or {}).items():
            text = files.files[of["file"]].decode()
            lists[list_name] = tuple(_entries(text, of.get("column", "")))
    return Bundle(domain(name), files, tuple(rules), lists)


def _canonical(value: str) -> str:
    """Return the form in which the engine gives a destination."""
    kind = kind_of(value)
    if kind is ValueKind.IBAN:
        return value.replace(" ", "")
    return value.lower() if kind in (ValueKind.MAILBOX, ValueKind.HOST) else value


def _entries(text: str, column: str) -> Iterator[str]:
    if column:
        for row in csv.DictReader(text.splitlines()):
            yield row[column].strip()
    else:
        for line in text.splitlines():
            if entry := line.partition("#")[0].strip():
                yield entry


def _facts(rule: Mapping[str, Any]) -> OperationFacts:
    destination = rule.get("destination")
    resource = rule.get("resource")
    return OperationFacts(
        effects=tuple(rule.get("effects", ())),
        destination=DestinationRule(
            _list(destination.get("from", ())), destination.get("when_absent", "")
        )
        if destination
        else None,
        objects=tuple(
            ObjectFacts(
                pointers=_list(one["from"]),
                role=one["role"],
                collection=one.get("collection", one.get("type", "")),
                currency=one.get("currency", ""),
                scale=int(one.get("scale", 1)),
            )
            for one in _dicts(rule.get("objects", ()))
        ),
        resource=(resource["collection"], resource.get("id", "")) if resource else None,
    )


def _list(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _dicts(value: Any) -> tuple[Mapping[str, Any], ...]:
    return (value,) if isinstance(value, Mapping) else tuple(value)


def values_at(arguments: Mapping[str, Any], pointer: str) -> list[str]:
    """Return the scalars at a JSON pointer, or in the list at it, as texts."""
    at: Any = arguments
    for name in pointer.split("/")[1:]:
        if not isinstance(at, Mapping) or name not in at:
            return []
        at = at[name]
    values = at if isinstance(at, list) else [at]
    return (
        [
            one if isinstance(one, str) else json.dumps(one)
            for one in values
            if isinstance(one, str | int | float)
        ]
        if pointer
        else []
    )


def _scalars(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for one in value.values():
            yield from _scalars(one)
    elif isinstance(value, list):
        for one in value:
            yield from _scalars(one)
    else:
        yield value


def _json(arguments: Mapping[str, Any]) -> bytes:
    return json.dumps(arguments, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
