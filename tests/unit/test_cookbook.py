"""The recipes of the cookbook: each bundle is free of warnings, and its tests notice the loss of any policy."""

import re
from pathlib import Path
from typing import Final

import pytest

from authz.bundle import read_folder, read_results
from authz.engine import Plan
from authz.errors import AuthzError
from authz.model import BundleFiles

ROOT: Final = Path(__file__).parents[2]
RECIPES: Final = sorted((ROOT / "examples" / "cookbook").iterdir())
NOW_MS: Final = 1_795_564_800_000
_POLICY: Final = re.compile(r'(?=^@id\(")', re.MULTILINE)


def _failures(bundle: BundleFiles) -> int:
    """Number of tests that fail; a bundle that is refused fails all of them."""
    try:
        plan = Plan.compile(bundle, {}, now_ms=NOW_MS)
    except AuthzError:
        return 1
    return len(read_results(plan.test(bundle, NOW_MS)).failures)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_recipe_works(recipe: Path) -> None:
    """Without a warning, and with tests that pass."""
    bundle = read_folder(recipe)
    plan = Plan.compile(bundle, {}, now_ms=NOW_MS)
    assert [str(warning) for warning in plan.warnings] == []
    results = read_results(plan.test(bundle, NOW_MS))
    assert not results.failures
    assert results.skipped == 0
    assert results.passed >= 3


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_the_tests_of_a_recipe_notice_each_policy(recipe: Path) -> None:
    """Without one of its policies at least one test fails, so that a reader may trust them."""
    bundle = read_folder(recipe)
    policies = [
        part for part in _POLICY.split(bundle.files["policy.cedar"].decode()) if "@id" in part
    ]
    assert len(policies) >= 2
    unnoticed = []
    for left_out in policies:
        text = "".join(policy for policy in policies if policy is not left_out)
        files = {**bundle.files, "policy.cedar": text.encode()}
        if _failures(BundleFiles(bundle.root, files)) == 0:
            unnoticed.append(left_out.splitlines()[0])
    assert unnoticed == []


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_recipe_has_a_page(recipe: Path) -> None:
    """Which shows its files."""
    page = (ROOT / "docs" / "cookbook" / f"{recipe.name}.md").read_text()
    for name in ("facts.yaml", "policy.cedar"):
        assert f"examples/cookbook/{recipe.name}/{name}" in page
