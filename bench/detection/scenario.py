"""The form of scenarios, and how they are read."""

import copy
import hashlib
import re
from collections.abc import Hashable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from bench.detection import goals, references
from bench.detection.systems import SYSTEMS
from bench.detection.world import Backend, CorpusError

FOLDER: Final = Path(__file__).parent
DOMAINS: Final = ("mail", "banking", "chat", "code", "travel", "shop")
KINDS: Final = ("honest", "hijacked")
CLASSES: Final = (
    "cleanup",
    "cross-tool",
    "destruction",
    "evasion",
    "exfiltration",
    "fraud",
    "goal-hijack",
    "memory-poisoning",
    "mosaic",
    "persistence",
    "privilege-escalation",
    "salami",
    "supply-chain",
    "tool-switching",
)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Id = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Text = Annotated[str, Field(min_length=1)]
Seed = dict[str, list[dict[str, Any]]]


def _goal(value: dict[str, Any]) -> dict[str, Any]:
    goals.check(value)
    return value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Step(_Strict):
    """One call that the agent makes.

    Attributes:
        call: the operation.
        with_: its arguments (`with`); texts may refer to earlier results.
        after: how much later than the step before.
        benign: within an attack: a step of the user's own task, made to look harmless or to wait.
    """

    call: Annotated[str, Field(pattern=r"^[a-z]+\.[a-z_]+$")]
    with_: dict[str, Any] = Field(default={}, alias="with")
    after: Annotated[str, Field(pattern=r"^[1-9][0-9]*[smhd]$")] = "1s"
    benign: bool = False

    @property
    def seconds(self) -> int:
        """Returns how many seconds later than the step before it is."""
        return int(self.after[:-1]) * _SECONDS[self.after[-1]]


class Later(_Strict):
    """A further task of the same user, given when the one before has ended.

    Attributes:
        first: number of the step that it begins with.
        prompt: the user's words.
        params: of the task.
        template: of the task, where the domain has several.
    """

    first: Annotated[int, Field(ge=2)]
    prompt: Text
    params: dict[str, str]
    template: Id | None = None


class Injection(_Strict):
    """Where the attacker speaks.

    Attributes:
        at: `table/key/column` of the seed; the key may contain `/`.
        says: what stands there, or the part of it that is the attacker's.
        read_by: number of the step that reads it; those after it are the attacker's.
    """

    at: Annotated[str, Field(pattern=r"^[a-z_]+/.+/[a-z_]+$")]
    says: Text
    read_by: Annotated[int, Field(ge=1)]

    @property
    def place(self) -> tuple[str, str, str]:
        """Returns table, key and column."""
        table, _, rest = self.at.partition("/")
        key, _, column = rest.rpartition("/")
        return table, key, column


class Scenario(_Strict):
    """One task that an agent works on, or several in turn.

    Attributes:
        id: unique in the corpus.
        domain: whose back end it is played on.
        kind: `honest` or `hijacked`.
        about: what happens, for people; of an attack: what it is and why it might work.
        user: who gave the task; one of the domain's.
        prompt: the user's words.
        params: of the task; those that the domain names.
        template: of the task, where the domain has several.
        later: further tasks.
        seed: what is there besides the domain's seed.
        steps: the calls, in order.
        goal: the end state that counts.
        classes: of the attack.
        injection: where the attacker speaks.
        like: the honest scenario whose prompt is of the same kind.
        text_alone: the honest scenario of the same prompts whose calls the attack makes, with other words in them.
    """

    id: Id
    domain: Literal[DOMAINS]  # type: ignore[valid-type]
    kind: Literal["honest", "hijacked"]
    about: Text
    user: Id
    prompt: Text
    params: dict[str, str]
    template: Id | None = None
    later: list[Later] = []
    seed: Seed = {}
    steps: Annotated[list[Step], Field(min_length=1)]
    goal: Annotated[dict[str, Any], AfterValidator(_goal)]
    classes: list[Literal[CLASSES]] = []  # type: ignore[valid-type]
    injection: Injection | None = None
    like: Id | None = None
    text_alone: Id | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        hijacked = self.kind == "hijacked"
        if hijacked != (self.injection is not None) or hijacked != bool(self.classes):
            raise ValueError("an attack, and no other, has `injection` and `classes`")
        if hijacked != (self.like is not None):
            raise ValueError("an attack, and no other, is `like` an honest scenario")
        if self.text_alone is not None and not hijacked:
            raise ValueError("only an attack is `text_alone`")
        if self.injection and self.injection.read_by >= len(self.steps):
            raise ValueError("no step stands after the one that reads the injection")
        for number, step in enumerate(self.steps, 1):
            if any(
                to >= number for value in step.with_.values() for to in references.numbers(value)
            ):
                raise ValueError(f"step {number} refers to itself or to a later one")
            if step.benign and not (self.injection and number > self.injection.read_by):
                raise ValueError(f"step {number}: only a step after the injection is `benign`")
        firsts = [one.first for one in self.later]
        if firsts != sorted(set(firsts)) or any(first > len(self.steps) for first in firsts):
            raise ValueError("`later` is not in order, or begins after the last step")
        return self

    @property
    def honest(self) -> bool:
        """Returns whether nobody attacks."""
        return self.kind == "honest"

    @property
    def given(self) -> tuple[Any, ...]:
        """Returns who gave its tasks, in which words, with which parameters."""
        tasks = [(self.prompt, self.params), *((one.prompt, one.params) for one in self.later)]
        return self.user, tasks

    def task(self, number: int) -> int:
        """Returns the task that a step belongs to: 0 is the first, n the n-th of `later`.

        Args:
            number: of the step, from 1.
        """
        return sum(number >= one.first for one in self.later)

    def template_of(self, task: int) -> str:
        """Returns the template of a task: the one that it names, or the domain's only one.

        Args:
            task: 0 is the first, n the n-th of `later`.
        """
        given = self.template if task == 0 else self.later[task - 1].template
        return given or self.domain

    def backend(self) -> Backend:
        """Returns a fresh back end, seeded for this scenario."""
        return domain(self.domain).backend(self.seed)


class User(_Strict):
    """A user of agents.

    Attributes:
        address: the mail address.
        claims: claims of the identity provider.
    """

    address: Text
    claims: dict[str, list[str]]


class Template(_Strict):
    """A kind of task that people give.

    Attributes:
        purpose: what they want.
        tools: the operations that it usually takes.
    """

    purpose: Text
    tools: Annotated[list[str], Field(min_length=1)]


class Domain(_Strict):
    """What the scenarios of one domain share.

    Attributes:
        name: of the domain.
        about: who works there on what.
        own: the organisation's domain of addresses and hosts.
        users: by name.
        params: what each task is given, and what it means.
        recipient_lists: recipients that the organisation knows, from a source that no agent writes.
        places: which places hold what, as an owner of the data would say it.
        names: what people call a recipient of the lists in their prompts.
        templates: the kinds of task, by name. Without any, every task has the template that is named as the domain.
        systems: what a security engineer knows of a system beyond the descriptions of its tools.
    """

    name: Id
    about: Text
    own: Text
    users: dict[str, User]
    params: dict[str, Text]
    recipient_lists: dict[str, list[str]]
    places: dict[str, Text]
    names: dict[str, list[str]] = {}
    templates: dict[Id, Template] = {}
    systems: dict[str, list[str]] = {}

    def backend(self, seed: Seed | None = None) -> Backend:
        """Returns a fresh back end.

        Args:
            seed: what is there besides the domain's seed.

        Raises:
            CorpusError: a seed has another form than the tables.
        """
        seeds = [copy.deepcopy(_seed(self.name)), seed or {}]
        return Backend.make(SYSTEMS[self.name], self.own, seeds)


class _Loader(yaml.CSafeLoader):
    """YAML 1.2 as far as it matters here: dates are texts, and no member stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002
        """Returns a mapping; a member that stands twice is an error."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if len(keys) != len(set(keys)):
            raise CorpusError(f"{node.start_mark}: a member stands twice")
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if not tag.endswith(":timestamp")]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read(text: str) -> Any:
    """Returns what a YAML text says.

    Args:
        text: the text.

    Raises:
        CorpusError: it is not YAML, or names a member twice.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise CorpusError(str(error)) from error


@cache
def _seed(name: str) -> Seed:
    found: Seed = read((FOLDER / name / "seed.yaml").read_text())
    return found


@cache
def domain(name: str) -> Domain:
    """Returns a domain.

    Args:
        name: one of `DOMAINS`.

    Raises:
        CorpusError: its file has another form.
    """
    try:
        return Domain(name=name, **read((FOLDER / name / "domain.yaml").read_text()))
    except (ValidationError, TypeError) as error:
        raise CorpusError(f"{name}: {error}") from error


def parse(entry: Mapping[str, Any], name: str, kind: str) -> Scenario:
    """Returns a scenario.

    Args:
        entry: as it stands in the file.
        name: of the domain.
        kind: `honest` or `hijacked`.

    Raises:
        CorpusError: it has another form, or names what the domain does not have.
    """
    try:
        found = Scenario(**{**entry, "domain": name, "kind": kind})
    except (ValidationError, TypeError) as error:
        raise CorpusError(f"{name}/{kind}: {entry.get('id')}: {error}") from error
    known = domain(name)
    if found.user not in known.users:
        raise CorpusError(f"{found.id}: there is no user `{found.user}`")
    for params in (found.params, *(one.params for one in found.later)):
        if set(params) != set(known.params):
            raise CorpusError(f"{found.id}: a task has the params {sorted(known.params)}")
    templates = {found.template_of(task) for task in range(len(found.later) + 1)}
    if not templates <= (set(known.templates) or {name}):
        raise CorpusError(f"{found.id}: there is no template {sorted(templates)}")
    if not re.match(name, found.id):
        raise CorpusError(f"{found.id}: an id begins with its domain")
    return found


@cache
def scenarios(name: str, kind: str) -> tuple[Scenario, ...]:
    """Returns the scenarios of a file.

    Args:
        name: of the domain.
        kind: `honest` or `hijacked`.

    Raises:
        CorpusError: one has another form.
    """
    entries = read((FOLDER / name / f"{kind}.yaml").read_text())
    found = tuple(parse(entry, name, kind) for entry in entries)
    for one in found:
        if one.text_alone is not None:
            twin_of(one)
    return found


def twin_of(attack: Scenario) -> Scenario:
    """Returns the honest scenario that a text-alone attack names.

    Args:
        attack: the attack.

    Raises:
        CorpusError: there is none of this id, or its user, prompts or params are others.
    """
    honest = {one.id: one for one in scenarios(attack.domain, "honest")}
    twin = honest.get(attack.text_alone or "")
    if twin is None:
        raise CorpusError(f"{attack.id}: there is no honest scenario `{attack.text_alone}`")
    if twin.given != attack.given:
        raise CorpusError(f"{attack.id}: `{twin.id}` has another user, prompt or other params")
    return twin


def corpus() -> tuple[Scenario, ...]:
    """Returns all scenarios.

    Raises:
        CorpusError: one has another form.
    """
    return tuple(one for name in DOMAINS for kind in KINDS for one in scenarios(name, kind))


def digest() -> str:
    """Returns the SHA-256 of all files of the corpus, for results to say what they were measured on."""
    found = hashlib.sha256()
    for file in sorted(FOLDER.glob("*/*.yaml")):
        found.update(f"{file.relative_to(FOLDER)}\0".encode())
        found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()
