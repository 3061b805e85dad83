"""Applies two of the example patches to a copy of the tree, builds the copy and runs their tests: `make recipes`."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.recipes.patches import RECIPES, ROOT

_LEFT_OUT: Final = shutil.ignore_patterns(
    ".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "_native*.so", "dist", "target"
)
_BUILT: Final = ("reason-code", "context-fact")
_KERNEL: Final = ("cargo", "test", "--quiet", "--locked", "--workspace", "--test", "kernel", "--")


def main() -> None:
    """Build and test a patched copy; exit with the status of the command that fails."""
    recipes = [recipe for recipe in RECIPES if recipe.name in _BUILT]
    with tempfile.TemporaryDirectory(prefix="authz-recipes-") as folder:
        tree = Path(folder) / "authz"
        # Not the times of the files: cargo must see every source of the copy as new.
        shutil.copytree(ROOT, tree, ignore=_LEFT_OUT, copy_function=shutil.copy)
        for recipe in recipes:
            print(f"recipes: apply {recipe.patch.name}", flush=True)  # noqa: T201
            recipe.apply(tree)
        native, target = tree / "native", _target()
        _run(tree, sys.executable, "scripts/proto.py")
        _run(native, *_KERNEL, "reference::", AUTHZ_WRITE_REFERENCE="1")
        _run(native, *_KERNEL, *(name for recipe in recipes for name in recipe.rust))
        _run(native, "cargo", "build", "--quiet", "--locked", "--package", "authz-python")
        shutil.copy(target / "debug/lib_native.so", tree / "authz/_native.abi3.so")
        tests = [test for recipe in recipes for test in recipe.python]
        _run(tree, sys.executable, "-m", "pytest", "--quiet", *tests)


def _target() -> Path:
    """Return the target folder: outside of the copy, so that the next run compiles only our own crates."""
    return Path(os.environ["CARGO_TARGET_DIR"]) / "recipes"


def _run(folder: Path, *command: str, **variables: str) -> None:
    print(f"recipes: {' '.join(command)}", flush=True)  # noqa: T201
    environment = {
        **os.environ,
        "CARGO_TARGET_DIR": str(_target()),
        "PYTHONPATH": str(folder if (folder / "authz").is_dir() else folder.parent),
        **variables,
    }
    done = subprocess.run(command, cwd=folder, env=environment, check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
