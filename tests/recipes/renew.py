"""Writes an example patch anew from the changes of the working tree: `python -m tests.recipes.renew reason-code`."""

import subprocess
import sys
from typing import Final

from tests.recipes.patches import RECIPES, ROOT, FilePatch, PatchError, is_generated

# Changes of these are of another commit, or follow from a command.
_LEFT_OUT: Final = ("docs/", "tests/recipes/", "proto/baseline.binpb")
_MOST_LINES: Final = 20


def main() -> None:
    """Write the patch of the named recipe; exit with a message when that fails."""
    recipe = next((recipe for recipe in RECIPES if recipe.name in sys.argv[1:]), None)
    if recipe is None:
        sys.exit(f"usage: renew {' | '.join(recipe.name for recipe in RECIPES)}")
    _git("add", "--intent-to-add", ".")
    changed = _git("diff", "--name-only", "HEAD").splitlines()
    written = [
        path for path in changed if not path.startswith(_LEFT_OUT) and not is_generated(path)
    ]
    if not written:
        sys.exit("renew: nothing has changed by hand")
    for lines in range(3, _MOST_LINES):
        recipe.patch.write_text(_git("diff", f"--unified={lines}", "HEAD", "--", *written))
        if all(map(_fits, recipe.files())):
            return
    sys.exit(f"renew: {recipe.patch.name} has a place that looks like another one")


def _fits(file: FilePatch) -> bool:
    """Return whether every place of a change is like no other one."""
    is_new = not _git("ls-tree", "--name-only", "HEAD", file.path)
    try:
        file.apply("" if is_new else _git("show", f"HEAD:{file.path}"))
    except PatchError:
        return False
    return True


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    main()
