"""A bundle whose facts and policies can be changed by structure: YAML by its mappings, Cedar by its syntax tree."""

import copy
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import cedarpy
from ruamel.yaml import YAML

from authz.bundle import read_folder

Node = dict[str, Any]
"""A mapping of YAML, or an object of Cedar's JSON form."""


class DraftError(ValueError):
    """A file of the bundle cannot be read as YAML or Cedar."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy in the JSON form of Cedar.

    Attributes:
        file: file that has the policy, relative to the bundle.
        node: syntax tree of the policy; a change of it changes the draft.
        siblings: all policies of the file, in order; without `node` the draft lacks the policy.
    """

    file: str
    node: Node
    siblings: list[Node]

    @property
    def id(self) -> str:
        """The `@id`."""
        return str(self.node["annotations"]["id"])

    @property
    def is_forbid(self) -> bool:
        """Whether the policy forbids."""
        return bool(self.node["effect"] == "forbid")

    @property
    def step_up(self) -> str | None:
        """The kind of `@stepup`; None without the annotation."""
        kind: str | None = self.node["annotations"].get("stepup")
        return kind

    def remove(self) -> None:
        """Take the policy out of the draft."""
        self.siblings[:] = [one for one in self.siblings if one is not self.node]


@dataclass(frozen=True, slots=True)
class Section:
    """The value of one top-level key in one file of facts.

    Attributes:
        file: file, relative to the bundle.
        value: mapping or list; a change of it changes the draft.
        key: the key.
        document: mapping that has the key.
    """

    file: str
    value: Any
    key: str
    document: Node

    def remove(self, name: str) -> None:
        """Take an entry out of the draft, and the key with its last entry."""
        del self.value[name]
        if not self.value:
            del self.document[self.key]


@dataclass(slots=True)
class Draft:
    """Facts and policies of one bundle, before they are written.

    Tests, generated catalogs and the pins of reviewed tools stay as they are.

    Attributes:
        name: name for reports, for example `detection/mail`.
        files: content of every file as it was read.
        facts: document of each YAML file that holds facts.
        policies: policies of each Cedar file.
    """

    name: str
    files: Mapping[str, bytes]
    facts: dict[str, Any] = field(default_factory=dict)
    policies: dict[str, list[Node]] = field(default_factory=dict)

    @classmethod
    def read(cls, name: str, folder: Path) -> "Draft":
        """Read a bundle.

        Args:
            name: name for reports.
            folder: folder of the bundle.

        Raises:
            BundleError: The folder has no readable bundle.
            DraftError: A file is neither YAML nor Cedar where it should be.
        """
        return cls.of(name, read_folder(folder).files)

    @classmethod
    def of(cls, name: str, files: Mapping[str, bytes]) -> "Draft":
        """Read a bundle from the content of its files.

        Raises:
            DraftError: A file is neither YAML nor Cedar where it should be.
        """
        draft = cls(name, files)
        for path, content in sorted(files.items()):
            try:
                if path.endswith(".cedar"):
                    draft.policies[path] = parse_policies(content.decode())
                elif _holds_facts(path):
                    draft.facts[path] = _yaml().load(content)
            except (
                Exception
            ) as error:  # both libraries raise types of their own, and plain ValueError
                raise DraftError(f"{name}/{path}: {error}") from error
        return draft

    def copy(self) -> "Draft":
        """Return a draft of the same bundle that changes by itself."""
        return Draft(self.name, self.files, copy.deepcopy(self.facts), copy.deepcopy(self.policies))

    def sections(self, key: str) -> Iterator[Section]:
        """Yield the value of a top-level key in every file that has it; `bundle` also is `bundle.yaml` as a whole."""
        for path, document in self.facts.items():
            if not isinstance(document, dict):
                continue
            if key == "bundle" and path == "bundle.yaml":
                yield Section(path, document, key, document)
            elif key in document:
                yield Section(path, document[key], key, document)

    def rules(self) -> Iterator[Policy]:
        """Yield every policy, by file and in order."""
        for path, nodes in self.policies.items():
            for node in nodes:
                yield Policy(path, node, nodes)

    def rendered(self, before: "Draft") -> dict[str, bytes]:
        """Return every file; a file that was not changed is the same, byte for byte.

        Args:
            before: draft of the same bundle without the change.
        """
        written = dict(self.files)
        for path, nodes in self.policies.items():
            if nodes != before.policies[path]:
                written[path] = print_policies(nodes).encode()
        for path, document in self.facts.items():
            if document != before.facts[path]:
                text = io.BytesIO()
                _yaml().dump(document, text)
                written[path] = text.getvalue()
        return written


@dataclass(frozen=True, slots=True)
class Site:
    """One place where an operator can change a draft.

    Attributes:
        file: file that changes.
        subject: thing that changes, for example the id of a policy.
        note: the change in a few words, for example `without resources`.
        change: makes the change in the draft that the site is of.
    """

    file: str
    subject: str
    note: str
    change: Callable[[], object]


def parse_policies(text: str) -> list[Node]:
    """Return the policies of a Cedar text in JSON form.

    Raises:
        ValueError: The text is not Cedar.
    """
    parsed = json.loads(cedarpy.policies_to_json_str(text))
    return list(parsed["staticPolicies"].values())


def print_policies(nodes: list[Node]) -> str:
    """Return policies in JSON form as a Cedar text."""
    static = {f"policy{index}": node for index, node in enumerate(nodes)}
    document = {"templates": {}, "staticPolicies": static, "templateLinks": []}
    # `;` ends a policy, so an empty text is no policy set of Cedar's parser but a file without policies of ours.
    return cedarpy.policies_from_json_str(json.dumps(document)) + "\n" if nodes else ""


def parse_condition(text: str) -> Node:
    """Return a condition, for example `context.chain.subject`, in JSON form."""
    (policy,) = parse_policies(f"permit (principal, action, resource) when {{ {text} }};")
    body: Node = policy["conditions"][0]["body"]
    return body


def nodes_of(value: Any) -> Iterator[Node]:
    """Yield every object inside a value, the outer ones first."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from nodes_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from nodes_of(inner)


def has_attribute(policy: Node, *names: str) -> bool:
    """Tell whether a policy reads one of these attributes in its conditions, for example `origins`."""
    return any(
        node["."].get("attr") in names
        for node in nodes_of(policy["conditions"])
        if isinstance(node.get("."), dict)
    )


def entities_of(policy: Node, kind: str) -> set[str]:
    """Return the ids of the entities of a type that the conditions of a policy name."""
    return {
        str(node["__entity"]["id"])
        for node in nodes_of(policy["conditions"])
        if isinstance(node.get("__entity"), dict) and node["__entity"]["type"] == kind
    }


_GENERATED: Final = (".mcp.yaml", ".accepted.yaml")


def _holds_facts(path: str) -> bool:
    folder = path.partition("/")[0]
    return (
        path.endswith(".yaml") and folder not in ("tests", "data") and not path.endswith(_GENERATED)
    )


def _yaml() -> YAML:
    # YAML 1.2, in which the key `on` of a split is not a boolean.
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 4096
    return yaml
