"""Reads the example patches and applies them to a tree.

`git apply` would need git, and looks at the repository that surrounds a source archive. Here every line that a hunk shows
must stand in the file exactly as it is shown, in one place only; how far the place has moved does not matter.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["RECIPES", "FilePatch", "PatchError", "Recipe", "is_generated", "is_test"]

ROOT: Final = Path(__file__).parents[2]
_HUNK: Final = re.compile(r"^@@ -(\d+)[, ].*$")
_GENERATED: Final = re.compile(r"[Gg]enerated by|@generated|Written by `")


class PatchError(Exception):
    """A patch does not fit the tree."""


@dataclass(frozen=True, slots=True)
class Hunk:
    """Lines of a file before and after a change."""

    line: int
    """Line at which the hunk was made."""
    old: str
    """Lines before the change, with their context."""
    new: str
    """Lines after the change, with their context."""


@dataclass(frozen=True, slots=True)
class FilePatch:
    """Changes of one file."""

    path: str
    """Path from the root of the repository."""
    hunks: tuple[Hunk, ...]
    """Changes, from the top of the file down."""

    def apply(self, text: str) -> str:
        """Return the text of the file after the changes.

        Args:
            text: Text of the file before. Empty: the patch makes the file.

        Raises:
            PatchError: The lines of a hunk stand nowhere in the text, or in several places.
        """
        if not text:
            return "".join(hunk.new for hunk in self.hunks if not hunk.old)
        # Lines match as a whole: the line before the hunk ends where the hunk begins.
        text = f"\n{text}"
        for hunk in self.hunks:
            old, new = f"\n{hunk.old}", f"\n{hunk.new}"
            places = len(re.findall(f"(?={re.escape(old)})", text))
            if places != 1:
                what = "not there" if places == 0 else f"in {places} places"
                raise PatchError(f"{self.path}: the lines of the hunk at {hunk.line} are {what}")
            text = text.replace(old, new)
        return text[1:]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One extension: its page, its patch and its tests."""

    name: str
    """Name of the patch."""
    rust: tuple[str, ...] = ()
    """Tests of the kernel that `run.py` runs."""
    python: tuple[str, ...] = ()
    """Python tests that `run.py` runs."""

    @property
    def patch(self) -> Path:
        """The patch."""
        return ROOT / "tests/recipes" / f"{self.name}.patch"

    @property
    def page(self) -> Path:
        """The page that explains the extension."""
        return ROOT / "docs/contributing" / f"{self.name}.md"

    def files(self) -> tuple[FilePatch, ...]:
        """Return the changes by file, in the order of the patch."""
        return tuple(_read(self.patch.read_text()))

    def apply(self, root: Path) -> None:
        """Apply the patch to a tree.

        Args:
            root: Folder of the tree.

        Raises:
            PatchError: The patch does not fit the tree.
        """
        for file in self.files():
            target = root / file.path
            target.write_text(file.apply(target.read_text() if target.exists() else ""))


RECIPES: Final = (
    Recipe(
        "reason-code",
        rust=("destinations_that_differ_are_few",),
        python=(
            "tests/conformance/test_reason_codes.py",
            "tests/conformance/test_case_files.py::test_check[decisions: mail to more hosts than one call may have]",
        ),
    ),
    Recipe(
        "context-fact",
        rust=(
            "policies_read_the_number_of_destinations",
            "ours_equals_the_authorizer_over_the_whole_set_but_for_the_rule_of_errors",
            "each_mistake_is_refused_with_its_place_and_its_fix",
        ),
        python=("tests/golden/test_golden.py::test_golden[bundle/policy-types]",),
    ),
    Recipe("engine-setting"),
    Recipe("record-kind"),
    Recipe("surface"),
)


def is_test(path: str) -> bool:
    """Return whether a file is a test."""
    return "tests" in Path(path).parts or Path(path).name == "tests.rs"


def is_generated(path: str) -> bool:
    """Return whether a file of the repository is written by a command."""
    if not (ROOT / path).exists():
        return False
    with (ROOT / path).open(encoding="utf-8") as file:
        return any(_GENERATED.search(line) for line, _ in zip(file, range(5), strict=False))


def _read(text: str) -> Iterator[FilePatch]:
    for section in re.split(r"^diff --git .*\n", text, flags=re.MULTILINE)[1:]:
        head, *hunks = re.split(r"^(?=@@ )", section, flags=re.MULTILINE)
        path = re.search(r"^\+\+\+ b/(.+)$", head, re.MULTILINE)
        if path is None:
            raise PatchError(f"no file is named: {head!r}")
        yield FilePatch(path[1], tuple(map(_hunk, hunks)))


def _hunk(text: str) -> Hunk:
    head, *rows = text.splitlines(keepends=True)
    match = _HUNK.match(head)
    if match is None:
        raise PatchError(f"not the head of a hunk: {head!r}")
    old = "".join(row[1:] for row in rows if row[0] in " -")
    new = "".join(row[1:] for row in rows if row[0] in " +")
    return Hunk(int(match[1]), old, new)
