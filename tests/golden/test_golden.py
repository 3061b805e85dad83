"""Every kind of message, word for word: `pytest tests/golden --update-golden` writes them anew."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from authz.cli import main
from tests.support.golden import Case, parse, render

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
CASES = sorted(HERE.glob("*/*.txtar"))


def _io(text: str) -> SimpleNamespace:
    from io import BytesIO  # noqa: PLC0415 - only cases that read standard input need it

    return SimpleNamespace(buffer=BytesIO(text.encode()))


def run(
    case: Case, folder: Path, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Run the commands of a case in a folder, and tell what each says."""
    patch.chdir(folder)
    for command in case.commands:
        words = shlex.split(command)
        assert words[0] == "authz", command
        patch.setattr(sys, "stdin", _io(case.files.get("stdin", "")))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(words[1:])
        said = capsys.readouterr()
        yield f"$ {command}"
        yield f"[exit {ended.value.code or 0}]"
        for name, text in (("stderr", said.err), ("stdout", said.out)):
            if text:
                yield f"[{name}]"
                yield re.sub(rf"{re.escape(str(folder))}/?", "", text).rstrip("\n")


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_golden(
    path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """What is said is what stands in the case."""
    for name in [name for name in os.environ if name.startswith("AUTHZ_")]:
        monkeypatch.delenv(name)
    case = parse(path.read_text())
    shutil.copytree(HERE / "base", tmp_path, dirs_exist_ok=True)
    for name, content in case.files.items():
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
    for name in case.removed:
        (tmp_path / name).unlink()
    said = "".join(f"{line}\n" for line in run(case, tmp_path, capsys, monkeypatch))
    if request.config.getoption("--update-golden", default=False):
        path.write_text(render(case, said))
    else:
        assert said == case.expected, "see tests/golden/README.md"


def test_every_case_is_there() -> None:
    """Of each kind of message."""
    kinds = {path.parent.name for path in CASES}
    assert kinds == {"bundle", "cases", "config", "history", "node", "trust", "usage"}
