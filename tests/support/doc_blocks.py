"""Reads the fenced blocks of the documentation, and checks each as the thing that it shows.

Blocks of these languages are checked: Cedar, YAML, Python and shell. A block that cannot be checked has a mark on the line
before it, which says why: `<!-- not run: WHY -->`. Blocks with `<!-- run -->` are run by the test of their guide.
"""

import ast
import importlib.util
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from authz.bundle import read_folder, read_results
from authz.config import load
from authz.engine import Plan
from authz.errors import AuthzError, ConfigError
from authz.model import BundleFiles

ROOT: Final = Path(__file__).parents[2]
LANGUAGES: Final = frozenset({"cedar", "console", "python", "sh", "yaml"})
PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
VARIABLES: Final = {"trust_domain": "dev.example", "recipient_lists": "https://people.corp.example"}
# Pages whose Python runs in a test of its own.
RUN_PYTHON: Final = frozenset({"docs/guides/sdk.md"})

_BLOCK: Final = re.compile(
    r"^(?: *<!-- (?P<mark>run|output|from: [^\n]*?|not run: [^\n]*?) -->\n\s*)?(?P<indent> *)```(?P<language>\w*)\n(?P<body>.*?)^ *```",
    re.MULTILINE | re.DOTALL,
)
# `recipient_lists` is a key of both the bundle and the configuration.
_CONFIG_PAGES: Final = "docs/reference/configuration/"
_CONFIG_APPROVALS: Final = frozenset({"login", "passkeys", "people", "url", "webhooks"})
_MANIFEST: Final = frozenset(
    {
        "implicit_tasks",
        "max_exception_days",
        "mcp",
        "name",
        "record_texts",
        "revision",
        "show_reason",
        "taskless_tier",
        "tasks",
    }
)
# YAML 1.1 takes this key for a boolean; bundles are read as 1.2.
_ON: Final = re.compile(r"([{\s])on:")
_MORE_FACTS: Final = ROOT / "tests/data/docs/facts.yaml"
_MORE_POLICIES: Final = ROOT / "tests/data/docs/more.cedar"
_CONFIG: Final = ROOT / "tests/data/docs/config.yaml"
_NOW_MS: Final = 1_795_564_800_000


@dataclass(frozen=True)
class DocBlock:
    """One fenced block of a page."""

    page: str
    """Path of the page from the root."""
    line: int
    """Line of the fence."""
    language: str
    mark: str
    """Mark on the line before: `run`, `output`, `from: FILE`, `not run: WHY`, or nothing."""
    text: str

    @property
    def place(self) -> str:
        """Page and line."""
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[DocBlock]:
    """Read the blocks of a page, in order."""
    text = page.read_text()
    name = page.relative_to(ROOT).as_posix()
    return [
        DocBlock(
            page=name,
            line=text.count("\n", 0, found.start("language")) + 1,
            language=found["language"],
            mark=found["mark"] or "",
            text=re.sub(f"^{found['indent']}", "", found["body"], flags=re.MULTILINE),
        )
        for found in _BLOCK.finditer(text)
    ]


def check(block: DocBlock, page: Iterable[DocBlock]) -> list[str]:
    """Check one block.

    Args:
        block: The block, of one of `LANGUAGES`.
        page: All blocks of its page. A Cedar block may name facts that YAML blocks of the page declare.

    Returns:
        Defects; empty if there are none.
    """
    if block.mark.startswith("from: "):
        file = ROOT / block.mark.removeprefix("from: ")
        stands = file.is_file() and block.text.strip("\n") in file.read_text()
        return [] if stands else [f"the text does not stand in {file}"]
    match block.language:
        case "cedar":
            return _check_bundle([*_facts(page)], [block.text])
        case "yaml":
            return _check_yaml(block, page)
        case "python":
            return _check_python(block)
        case _:
            return ["mark the commands with `<!-- run -->`, or say `<!-- not run: WHY -->`"]


def _parsed(text: str) -> Any:
    return yaml.safe_load(_ON.sub(r'\1"on":', text))


def _check_yaml(block: DocBlock, page: Iterable[DocBlock]) -> list[str]:
    value = _parsed(block.text)
    if not isinstance(value, dict):
        return ["the block is not a mapping"]
    if "tests" in value or "fixtures" in value:
        return _check_bundle([*_facts(page)], [], tests=value)
    if _is_of_bundle(value) and not block.page.startswith(_CONFIG_PAGES):
        return _check_bundle([value], [])
    return _check_config(value)


def _is_of_bundle(value: Mapping[str, Any]) -> bool:
    """True for facts of a bundle. `bundle` and `approvals` are keys of the configuration, too, with other keys in them."""
    is_config = "path" in value.get("bundle", {}) or not _CONFIG_APPROVALS.isdisjoint(
        value.get("approvals", {})
    )
    return set(value) <= _bundle_keys() and not is_config


@cache
def _bundle_keys() -> frozenset[str]:
    base = _base_facts()
    return (
        frozenset(base)
        | _MANIFEST
        | {"accepted", "analysis", "approvals", "bundle", "denials", "mode"}
    )


def _facts(page: Iterable[DocBlock]) -> Iterator[dict[str, Any]]:
    """Facts of a bundle that the YAML blocks of a page declare."""
    for block in page:
        if block.language == "yaml" and not block.mark.startswith("not run"):
            value = None if block.mark.startswith("from: ") else _parsed(block.text)
            if isinstance(value, dict) and _is_of_bundle(value):
                yield value


@cache
def _base_facts() -> dict[str, Any]:
    """Facts of the quickstart's bundle, with more systems, so that examples of many kinds have names to use."""
    facts: dict[str, Any] = {}
    for path in sorted((ROOT / "examples/quickstart/bundle").glob("*.yaml")):
        if path.name != "bundle.yaml":
            facts = _overlaid(facts, _parsed(path.read_text()))
    return _overlaid(facts, _parsed(_MORE_FACTS.read_text()))


def _overlaid(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of an example over those of a bundle: an entry of the example takes the place of one with its name."""
    facts = deepcopy(dict(base))
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(facts.get(key), dict) and key != "mode":
            entry = _system if key == "catalog" else _entry
            named = {name: entry(facts[key].get(name), inner) for name, inner in value.items()}
            facts[key] = {**facts[key], **named}
        elif isinstance(value, list) and isinstance(facts.get(key), list):
            names = {_rule_name(rule) for rule in value}
            facts[key] = [*value, *(rule for rule in facts[key] if _rule_name(rule) not in names)]
        else:
            facts[key] = value
    # An operation of an example may say its effects itself; then no rule may say them, too.
    said = {
        f"{system}.{name}"
        for system, entry in over.get("catalog", {}).items()
        for name, operation in entry.get("operations", {}).items()
        if "effects" in operation
    }
    if said:
        facts["classify"] = [rule for rule in facts["classify"] if rule["match"] not in said]
    return facts


def _entry(base: Any, over: Any) -> Any:
    """An entry of an example takes the place of one with its name."""
    del base
    return over


def _system(base: Mapping[str, Any] | None, over: Mapping[str, Any]) -> dict[str, Any]:
    """A system of an example has the operations of the bundle's besides its own."""
    base = base or {}
    operations = {**base.get("operations", {}), **over.get("operations", {})}
    merged = {**base, **over}
    return {**merged, "operations": operations} if operations else merged


def _rule_name(rule: Mapping[str, Any]) -> Any:
    """The part of a rule that no other rule may share."""
    return rule.get("match") or (rule.get("method"), re.sub(r"\{.*?\}", "{}", rule.get("path", "")))


def _check_bundle(
    examples: list[dict[str, Any]], policies: list[str], tests: dict[str, Any] | None = None
) -> list[str]:
    base = read_folder(ROOT / "examples/quickstart/bundle").files
    files = {name: text for name, text in base.items() if name.startswith("policies/")}
    manifest = {"name": "example", "tasks": "optional"}
    facts = _base_facts()
    for example in examples:
        manifest |= {key: value for key, value in example.items() if key in _MANIFEST}
        facts = _overlaid(facts, {k: v for k, v in example.items() if k not in _MANIFEST})
    if "bundle" not in facts:
        files["bundle.yaml"] = yaml.safe_dump(manifest).encode()
    files["facts.yaml"] = yaml.safe_dump(facts, sort_keys=False).encode()
    for catalog in sorted((ROOT / "tests/data/docs/catalog").iterdir()):
        system = catalog.name.partition(".")[0]
        if facts["catalog"][system]["kind"] == "mcp":
            files[f"catalog/{catalog.name}"] = catalog.read_bytes()
    files["policies/more.cedar"] = _MORE_POLICIES.read_bytes()
    files["policies/readers.cedar"] = _readers(facts).encode()
    for name in re.findall(r"data/[\w.]+", str(facts.get("recipient_lists", {}))):
        files[name] = b"email,name\nbob@corp.example,Bob Lee\n"
    for number, policy in enumerate(policies):
        # The bundle may have a policy of the same id already.
        text = re.sub(r'@id\("', f'@id("example-{number}-', policy)
        files[f"policies/example-{number}.cedar"] = text.encode()
    if tests is not None:
        files["tests/example.yaml"] = yaml.safe_dump(tests, sort_keys=False).encode()
    bundle = BundleFiles("example", files)
    try:
        plan = Plan.compile(bundle, VARIABLES, now_ms=_NOW_MS)
    except AuthzError as error:
        return str(error).splitlines()
    if tests is None:
        return []
    results = read_results(plan.test(bundle, _NOW_MS))
    return [
        f"{failure.test}, step {failure.step}: expected {failure.expected}, got {failure.actual or failure.message}"
        for failure in results.failures
    ]


def _readers(facts: Mapping[str, Any]) -> str:
    """Policies that read each sequence and each budget of the facts, since a bundle without one is refused."""
    names = [f'context.sequences.contains(Sequence::"{name}")' for name in facts["sequences"]]
    names += [
        f'context.budgets.contains(Budget::"{name}")'
        for name, budget in facts["budgets"].items()
        if budget.get("then") == "policy"
    ]
    return "".join(
        f'@id("reads-{number}") forbid (principal, action, resource) when {{ {name} }};\n'
        for number, name in enumerate(names)
    )


def _check_config(value: Mapping[str, Any]) -> list[str]:
    """Load a part of the configuration, over a whole one."""
    config = _parsed(_CONFIG.read_text())
    for section, part in value.items():
        if section == "trust":
            config[section] = _overlaid(config[section], part)
        else:
            config = _overlaid(config, {section: part})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        try:
            load(path, {}, working_folder=Path(folder))
        except ConfigError as error:
            return str(error).splitlines()
    return []


def _check_python(block: DocBlock) -> list[str]:
    if block.page in RUN_PYTHON:
        return []
    return ["run the page in a test, and add it to `RUN_PYTHON`, or say `<!-- not run: WHY -->`"]


def missing_imports(block: DocBlock) -> list[str]:
    """Compile a block of Python, and look up each name that it imports of ours.

    Args:
        block: The block; it may be one that is not run.

    Returns:
        Defects; empty if there are none.
    """
    return [
        f"`{node.module}` has no `{name.name}`"
        for node in ast.walk(ast.parse(block.text))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("authz")
        for name in node.names
        if name.name not in _names_of(node.module)
    ]


@cache
def _names_of(module: str) -> frozenset[str]:
    """Names of a module, read and not imported: it may need a library that is not installed."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return frozenset()
    names: set[str] = set()
    for node in ast.walk(ast.parse(Path(spec.origin).read_text())):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.ImportFrom() | ast.Import():
                names |= {one.asname or one.name for one in node.names}
            case ast.Name(ctx=ast.Store()):
                names.add(node.id)
    return frozenset(names)


def counts() -> tuple[int, dict[str, str]]:
    """Count the blocks of the documentation.

    Returns:
        Number of blocks that are run or checked, and the reason of each block that is not, by its place.
    """
    of_language = [block for page in PAGES for block in blocks(page) if block.language in LANGUAGES]
    skipped = {
        block.place: block.mark.removeprefix("not run: ")
        for block in of_language
        if block.mark.startswith("not run: ")
    }
    return len(of_language) - len(skipped), skipped


if __name__ == "__main__":
    checked, skipped = counts()
    lines = [f"examples: {checked} are run or checked, {len(skipped)} are not:"]
    lines += [f"  {place}: {why}" for place, why in skipped.items()]
    sys.stdout.write("\n".join(lines) + "\n")
