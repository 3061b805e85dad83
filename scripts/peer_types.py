"""Writes the types that Cedar's own generator gives the arguments of real MCP tools: `python scripts/peer_types.py`.

The generator is the crate `cedar-policy-mcp-schema-generator`, built by `make mcp-types`. What it says is kept in
`tests/data/cedar/mcp-types.json`, to which the tests of the kernel hold our own types.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parents[1] / "tests" / "data" / "mcp"
FILE: Final = FOLDER.with_name("cedar") / "mcp-types.json"
_STUB: Final = """
namespace Mcp {
    @mcp_principal("User")
    entity User;
    @mcp_resource("McpServer")
    entity McpServer;
}
"""
_PRIMITIVES: Final = frozenset(
    {"Bool", "Long", "String", "decimal", "datetime", "duration", "ipaddr"}
)
_MAX_DEPTH: Final = 12
_NAMES: Final = ("stub.cedarschema", "tools.json", "out.json")

Schema = dict[str, dict[str, Any]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the file; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("generator", type=Path, help="cedar-policy-mcp-schema-generator")
    generator: Path = parser.parse_args(arguments).generator
    version = subprocess.run(
        [generator, "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    types: dict[str, Any] = {}
    refused: dict[str, dict[str, str]] = {}
    for listing in sorted(FOLDER.glob("*.json")):
        # One tool at a time: a tool that is refused does not hide the others.
        for tool in json.loads(listing.read_text())["tools"]:
            said, ok = _ask(generator, tool)
            where = types if ok else refused
            where.setdefault(listing.stem, {})[tool["name"]] = said
    told = {"generator": version.stdout.strip(), "refused": refused, "types": types}
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")
    print(
        f"{FILE}: {sum(map(len, types.values()))} tools, {sum(map(len, refused.values()))} refused"
    )
    return 0


def _ask(generator: Path, tool: dict[str, Any]) -> tuple[Any, bool]:
    """Types of a tool's arguments, or why there are none."""
    # A name with `-` is refused at once, and says nothing about the arguments.
    name = re.sub(r"\W", "_", tool["name"])
    listing = {"result": {"tools": [{**tool, "name": name}]}}
    with tempfile.TemporaryDirectory() as folder:
        stub, tools, out = (Path(folder) / file for file in _NAMES)
        stub.write_text(_STUB)
        tools.write_text(json.dumps(listing))
        done = subprocess.run(
            [
                *(
                    str(generator),
                    "generate",
                    "--objects-as-records",
                    "--encode-numbers-as-decimal",
                ),
                *("--output-format", "json", "--error-format", "plain", "--output", str(out)),
                *(str(stub), str(tools)),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            told = " ".join((done.stdout + done.stderr).split())
            return told.partition(" Diagnostic severity")[0], False
        schema: Schema = json.loads(out.read_text())
    made = schema["Mcp"]["commonTypes"][f"{name}Input"]["attributes"]
    return {
        argument: _text(schema, "Mcp", kind, 0) + ("" if kind.get("required", True) else "?")
        for argument, kind in made.items()
    }, True


def _text(schema: Schema, space: str, kind: dict[str, Any], depth: int) -> str:
    """A type as text: `String`, `Set<Long>`, `{a: String, b: Long?}`; `Enum`, `Tags`, `Union`, `Recursive`."""
    if depth > _MAX_DEPTH:
        return "Recursive"
    word = kind["type"]
    if word == "Set":
        return f"Set<{_text(schema, space, kind['element'], depth + 1)}>"
    if word == "Record":
        members = kind["attributes"]
        if any(name.startswith("typeChoice") for name in members):
            return "Union"
        return (
            "{"
            + ", ".join(
                f"{name}: {_text(schema, space, member, depth + 1)}"
                + ("" if member.get("required", True) else "?")
                for name, member in sorted(members.items())
            )
            + "}"
        )
    return _named(schema, space, str(kind.get("name", word)).removeprefix("__cedar::"), depth)


def _named(schema: Schema, space: str, name: str, depth: int) -> str:
    if name in _PRIMITIVES:
        return name
    for where in (space, ""):
        outer, _, last = (f"{where}::{name}" if where else name).rpartition("::")
        said = schema.get(outer, {})
        if (common := said.get("commonTypes", {}).get(last)) is not None:
            return _text(schema, outer, common, depth + 1)
        if (entity := said.get("entityTypes", {}).get(last)) is not None:
            return "Enum" if "enum" in entity else "Tags" if "tags" in entity else "Entity"
    return f"Unknown {name}"


if __name__ == "__main__":
    sys.exit(main())
