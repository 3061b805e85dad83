"""Reads the parts of a Markdown file that must run as printed.

A fence ```sh after a line `<!-- run -->` is run; a fence after `<!-- output -->` is what the run before it must print.
In expected output `…` stands for anything within a line, and a line `…` for any lines.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(
    r"^<!-- (?P<kind>run|output) -->\n(?:[ \t]*\n)*```(?P<language>\w*)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_MARKS = re.compile(r"^<!-- (?:run|output) -->$", re.MULTILINE)
_IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIMES = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)")
_DIGESTS = re.compile(r"\b[0-9a-f]{64}\b")
_DURATIONS = re.compile(r"\b\d+(?:\.\d+)? ?(?:ns|µs|us|ms|s)\b")


@dataclass(frozen=True)
class Block:
    """Commands, and what they must print, if that is said."""

    line: int
    commands: str
    output: str | None


def blocks(text: str) -> list[Block]:
    """Finds every block, in order.

    Raises:
        ValueError: A mark without a fence of its kind.
    """
    found = list(_FENCE.finditer(text))
    if len(found) != len(_MARKS.findall(text)):
        raise ValueError("a mark is not followed by a fence")
    return list(_pair(text, found))


def _pair(text: str, found: list[re.Match[str]]) -> Iterator[Block]:
    pending: Block | None = None
    for match in found:
        line = text.count("\n", 0, match.start()) + 1
        if match["kind"] == "run":
            if match["language"] != "sh":
                raise ValueError(f"line {line}: only `sh` is run")
            if pending is not None:
                yield pending
            pending = Block(line, match["body"], None)
        elif pending is None or pending.output is not None:
            raise ValueError(f"line {line}: output without a run")
        else:
            pending = Block(pending.line, pending.commands, match["body"])
    if pending is not None:
        yield pending


def normal(text: str) -> str:
    """Replaces what differs from run to run: ids, times, digests, durations, and space at ends of lines."""
    for pattern, name in (
        (_IDS, "<id>"),
        (_TIMES, "<time>"),
        (_DIGESTS, "<digest>"),
        (_DURATIONS, "<duration>"),
    ):
        text = pattern.sub(name, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def matches(expected: str, printed: str) -> bool:
    """Tells whether the output is what the file says."""
    lines = []
    for line in normal(expected).split("\n"):
        if line.strip() in {"…", "..."}:
            lines.append(r"(?:.*\n)*?")
        else:
            lines.append(".*".join(re.escape(part) for part in line.split("…")) + r"\n")
    return re.fullmatch("".join(lines), normal(printed) + "\n") is not None


def copy_tree(root: Path, target: Path) -> None:
    """Copies what a fresh clone would hold after `make setup`: tracked and new files, extension, environment.

    The environment is that of this run, with stamps of its own: were it built again here, it would end up in the copy.
    """
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=root,
        capture_output=True,
        check=True,
    )
    names = [name for name in listed.stdout.decode().split("\0") if name]
    names += [path.relative_to(root).as_posix() for path in root.glob("authz/_native*.so")]
    for name in names:
        if (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)
    environment = target / ".venv"
    environment.mkdir()
    for path in (root / ".venv").iterdir():
        if path.name != ".stamps":
            (environment / path.name).symlink_to(path)
    stamps = environment / ".stamps"
    stamps.mkdir()
    for name in ("deps", "client", "native"):
        (stamps / name).touch()


def run_page(page: Path, clone: Path, *, within_s: int = 200) -> int:
    """Runs the blocks of a page in order, in a copy of the tree, and compares what they print.

    Args:
        page: The page.
        clone: Folder of the copy, made by `copy_tree`.
        within_s: Longest time of a block, in seconds.

    Returns:
        The number of blocks.

    Raises:
        AssertionError: A block fails, or prints something else.
    """
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "120",
        "NO_COLOR": "1",
    }
    found = blocks(page.read_text())
    for block in found:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.commands],
            cwd=clone,
            env=environment,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )
        where = f"{page.name}:{block.line}"
        assert done.returncode == 0, f"{where}\n{done.stdout}\n{done.stderr}"
        if block.output is not None:
            assert matches(block.output, done.stdout), f"{where}\n{done.stdout}"
    return len(found)
