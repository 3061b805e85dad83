"""The pages of docs/contributing that explain an extension name the files that its example patch changes."""

import re
from pathlib import Path
from typing import Final

import pytest

from tests.recipes.patches import (
    RECIPES,
    ROOT,
    FilePatch,
    PatchError,
    Recipe,
    is_generated,
    is_test,
)

MOST_FILES: Final = 3
PAGES: Final = ROOT / "docs/contributing"
SECTION: Final = re.compile(r"^## (.+)\n((?:(?!## ).*\n?)*)", re.MULTILINE)
PLACE: Final = re.compile(r"`((?:authz|bench|deploy|docs|native|proto|scripts|tests)/[\w./-]+)`")
ENTRY: Final = re.compile(r"^(?:\d+\.|-) `([^`]+)`", re.MULTILINE)


def _name(recipe: Recipe) -> str:
    return recipe.name


def _listed(recipe: Recipe, heading: str) -> list[str]:
    """Files that a list of the page begins its entries with."""
    sections = dict(SECTION.findall(recipe.page.read_text()))
    return ENTRY.findall(sections[heading])


each_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=_name)


@each_recipe
def test_the_patch_fits_the_tree(recipe: Recipe) -> None:
    """Every line that the patch shows stands in the tree as shown.

    If a change of yours breaks this, make the patch anew: docs/contributing/README.md says how.
    """
    for file in recipe.files():
        path = ROOT / file.path
        before = path.read_text() if path.exists() else ""
        assert file.apply(before) != before, file.path


@each_recipe
def test_an_extension_touches_few_files(recipe: Recipe) -> None:
    """A fourth file means that a table or a generator is missing."""
    paths = [file.path for file in recipe.files()]
    written = [path for path in paths if not is_test(path)]
    assert 1 <= len(written) <= MOST_FILES, written
    assert any(is_test(path) for path in paths), "the patch has no test"
    assert [path for path in paths if is_generated(path)] == [], "a command writes these files"


@each_recipe
def test_the_page_names_the_files_of_the_patch(recipe: Recipe) -> None:
    """No more, and no less."""
    paths = {file.path for file in recipe.files()}
    written, tests = _listed(recipe, "Files"), _listed(recipe, "Tests")
    assert {path for path in paths if not is_test(path)} == set(written)
    assert {path for path in paths if is_test(path)} == set(tests)


@each_recipe
def test_generated_files_of_the_page_are_generated(recipe: Recipe) -> None:
    """What a reader need not write is written by a command."""
    for path in _listed(recipe, "Generated files"):
        assert path.endswith(("/", ".binpb")) or is_generated(path), path
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.name)
def test_a_page_names_files_that_are_there(page: Path) -> None:
    """A file that was moved is moved in the pages, too."""
    made = {file.path for recipe in RECIPES for file in recipe.files()}
    named = set(PLACE.findall(page.read_text()))
    assert [path for path in sorted(named - made) if not (ROOT / path).exists()] == []


def test_every_patch_and_page_is_known() -> None:
    """A patch that no test reads would rot."""
    patches = {path.stem for path in (ROOT / "tests/recipes").glob("*.patch")}
    assert patches == {recipe.name for recipe in RECIPES}
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", (PAGES / "README.md").read_text()))
    assert linked == {path.name for path in PAGES.glob("*.md")} - {"README.md"}


PATCH: Final = """\
diff --git a/names.txt b/names.txt
index 1..2 100644
--- a/names.txt
+++ b/names.txt
@@ -1,3 +1,4 @@
 one
+and
 two
-three
+four
"""


@pytest.fixture(name="file")
def read_patch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FilePatch:
    """The change of one file."""
    monkeypatch.setattr("tests.recipes.patches.ROOT", tmp_path)
    patch = tmp_path / "tests/recipes/example.patch"
    patch.parent.mkdir(parents=True)
    patch.write_text(PATCH)
    (file,) = Recipe("example").files()
    return file


def test_a_moved_place_is_found(file: FilePatch) -> None:
    """Other people add lines above."""
    assert file.path == "names.txt"
    assert file.apply("zero\none\ntwo\nthree\n") == "zero\none\nand\ntwo\nfour\n"


@pytest.mark.parametrize(
    "text",
    [
        "one\ntwo\n",
        "one\n two\nthree\n",
        "someone\ntwo\nthree\n",
        "one\ntwo\nthree\none\ntwo\nthree\n",
    ],
)
def test_a_changed_or_repeated_place_is_refused(file: FilePatch, text: str) -> None:
    """A patch that applied elsewhere would show a reader something that nobody wrote."""
    with pytest.raises(PatchError, match=r"names\.txt: the lines of the hunk at 1 are"):
        file.apply(text)
