"""Commands of the README and of the documentation work as printed, in a copy of the tree."""

from pathlib import Path

import pytest

from tests.support.readme import Block, blocks, copy_tree, matches, run_page

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
# Pages whose commands need a node: test_approvals_guide.py, test_tasks_guide.py, test_quickstart.py and test_operate.py run them.
WITH_NODE = {
    ROOT / "docs/guides/approvals.md",
    ROOT / "docs/guides/tasks.md",
    ROOT / "docs/start/quickstart.md",
    *(ROOT / "docs/operate").glob("*.md"),
}
# Pages whose commands find something, and say so by their exit codes: test_find_the_path_guide.py runs them.
WITH_FINDINGS = {ROOT / "docs/guides/find-the-path.md"}


def test_marks() -> None:
    """The reader finds commands and output, in order, and refuses stray marks."""
    text = "<!-- run -->\n```sh\necho a\n```\n\n<!-- output -->\n```text\na\n```\n<!-- run -->\n```sh\nb\n```\n"
    assert blocks(text) == [Block(1, "echo a\n", "a\n"), Block(10, "b\n", None)]
    for stray in (
        "<!-- run -->\ntext\n",
        "<!-- output -->\n```\na\n```\n",
        "<!-- run -->\n```py\n```\n",
    ):
        with pytest.raises(ValueError, match=r"mark|output|sh"):
            blocks(stray)


def test_output_is_compared_but_for_ids_and_times() -> None:
    """Ids, times and durations differ; everything else does not."""
    expected = "decision 00000000-0000-0000-0000-000000000000 in 12 µs\n…\nat … end\n"
    printed = "decision 01890a5d-ac96-774b-bcce-b302099a8057 in 7.5 µs\nmore\nlines\nat 7 end\n"
    assert matches(expected, printed)
    assert not matches(expected, printed.replace("more", "more").replace("at 7 end", "at 7 e"))
    assert not matches("PERMIT\n", "DENY\n")


@pytest.mark.envoy
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_readme(tmp_path: Path) -> None:
    """Each block in order, in one copy; what is printed is what the file says."""
    clone = tmp_path / "authz"
    copy_tree(ROOT, clone)
    assert run_page(README, clone), "the README marks no commands"


def _pages() -> list[Path]:
    """Pages of the documentation with commands to run that have no test of their own."""
    pages = (page for page in sorted((ROOT / "docs").rglob("*.md")) if blocks(page.read_text()))
    return [page for page in pages if page not in WITH_NODE | WITH_FINDINGS]


@pytest.mark.slow
@pytest.mark.parametrize("page", _pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_of_a_page(page: Path, tmp_path: Path) -> None:
    """As those of the README."""
    clone = tmp_path / "authz"
    copy_tree(ROOT, clone)
    assert run_page(page, clone)
