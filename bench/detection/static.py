"""The static part of a bundle: the same without its rules about history."""

import json
import re
from collections.abc import Hashable, Iterator, Mapping
from itertools import pairwise
from typing import Any, Final

import yaml

from authz.model import BundleFiles
from bench.detection.world import CorpusError

HISTORY: Final = frozenset({"budgets", "sequences", "session", "uncleared_labels"})
"""Members of `context` that say what was done before."""
_KEYS: Final = ("budgets", "denials", "sequences")
_OF_LABELS: Final = ("derive", "tier")
_NOT_FACTS: Final = ("catalog/", "data/", "policies/", "tests/")
_TOKEN: Final = re.compile(r'//[^\n]*|\s+|"(?:\\.|[^"\\])*"|[A-Za-z_]\w*|.', re.DOTALL)
_SCALARS: Final = (
    ("bool", "true|false", [*"tf"]),
    ("int", "[-+]?[0-9]+", [*"-+0123456789"]),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?", [*"-+.0123456789"]),
    ("null", "null|~|", [*"n~", ""]),
)


class _Loader(yaml.SafeLoader):
    """YAML 1.2, as bundles are read: `on` and dates are texts."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002
        """Returns a mapping; its keys are texts as they stand."""
        return {key.value: self.construct_object(value, deep=deep) for key, value in node.value}


_Loader.yaml_implicit_resolvers = {
    first: [
        (f"tag:yaml.org,2002:{name}", re.compile(rf"(?:{pattern})\Z"))
        for name, pattern, firsts in _SCALARS
        if first in firsts
    ]
    for first in {first for _, _, firsts in _SCALARS for first in firsts}
}


def static_part(bundle: BundleFiles) -> BundleFiles:
    """Returns a bundle without its rules about history, and without its own tests.

    Sequences, budgets, denials, derived labels, tiers of labels, and every forbid that reads what was
    done before are gone. All else stays.

    Args:
        bundle: the whole.

    Raises:
        CorpusError: a permit reads what was done before: nobody could say what is left of it.
    """
    files = {}
    for name, content in bundle.files.items():
        if name.startswith("tests/"):
            continue
        if name.endswith(".cedar"):
            files[name] = _policies(name, content.decode()).encode()
        else:
            facts = facts_of(name, content)
            files[name] = content if facts is None else _facts(content, facts)
    return BundleFiles(bundle.root, files)


def facts_of(name: str, content: bytes) -> dict[str, Any] | None:
    """Returns the facts that a file of a bundle states; none where it is not a file of facts.

    Args:
        name: of the file.
        content: of the file.
    """
    if not name.endswith((".yaml", ".yml")) or name.startswith(_NOT_FACTS):
        return None
    facts = yaml.load(content, _Loader)
    return facts if isinstance(facts, dict) else None


def _facts(content: bytes, facts: Mapping[str, Any]) -> bytes:
    left = {key: value for key, value in facts.items() if key not in _KEYS}
    labels = left.get("labels")
    if isinstance(labels, dict):
        left["labels"] = {name: _label(said) for name, said in labels.items()}
    # What says nothing about history stays as it stands.
    return content if left == facts else json.dumps(left, ensure_ascii=False).encode()


def _label(said: Any) -> Any:
    if not isinstance(said, Mapping):
        return said
    return {key: value for key, value in said.items() if key not in _OF_LABELS}


def _policies(name: str, text: str) -> str:
    left = []
    for policy in split(text):
        if not reads_history(policy):
            left.append(policy)
        elif _effect(policy) == "permit":
            said = " ".join(policy.split())[:80]
            raise CorpusError(f"{name}: a permit reads what was done before: {said}")
    return "".join(left)


def split(text: str) -> Iterator[str]:
    """Yields the policies of a Cedar file, each with what stands before it, and what stands after the last.

    Args:
        text: of the file.
    """
    policy = ""
    for token in _TOKEN.findall(text):
        policy += token
        if token == ";":
            yield policy
            policy = ""
    yield policy


def reads_history(policy: str) -> bool:
    """Returns whether a policy reads what was done before.

    Args:
        policy: in Cedar.
    """
    tokens = _tokens(policy)
    return any(
        one == "context" and how in (".", "[", "has") and what.strip('"') in HISTORY
        for one, how, what in zip(tokens, tokens[1:], tokens[2:], strict=False)
    )


def _effect(policy: str) -> str:
    """The first of the two words that is no annotation."""
    for before, token in pairwise(["", *_tokens(policy)]):
        if token in ("permit", "forbid") and before != "@":
            return token
    return ""


def _tokens(policy: str) -> list[str]:
    return [one for one in _TOKEN.findall(policy) if one.strip() and not one.startswith("//")]
