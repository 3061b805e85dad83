"""The commands of the guide to a first path work as printed."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from authz.analysis.executable import find_analyzer
from authz.errors import UsageError
from tests.support.readme import blocks, matches

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs/guides/find-the-path.md"


def _is_built() -> bool:
    try:
        find_analyzer()
    except UsageError:
        return False
    return importlib.util.find_spec("cvc5") is not None


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not _is_built(), reason="needs `make analyzer` and the solver")
def test_guide(tmp_path: Path) -> None:
    """Each block in order; the path is there, and gone after the cut; the picture of the page is the one that the tool draws."""
    shutil.copytree(ROOT / "examples/company", tmp_path / "examples/company")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "AUTHZ_ANALYZER": str(find_analyzer()),
        "COLUMNS": "120",
        "NO_COLOR": "1",
    }
    text = GUIDE.read_text()
    codes = []
    for block in blocks(text):
        done = subprocess.run(
            ["bash", "-uo", "pipefail", "-c", block.commands],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        codes.append(done.returncode)
        assert block.output is not None
        assert matches(block.output, done.stdout), f"{done.stdout}\n{done.stderr}"
    assert codes == [0, 2, 2, 0]
    (picture,) = re.findall(r"^```mermaid\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert picture.strip() == (tmp_path / "found/9de9bd0bbf773669.mmd").read_text().strip()
