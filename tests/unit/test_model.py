"""Values that the parts hand to one another: their text."""

import pytest

from authz.model import Diagnostic


@pytest.mark.parametrize(
    ("what", "fix", "text"),
    [
        ("no such role `bott`", "Did you mean `bot`?", "no such role `bott`. Did you mean `bot`?"),
        ("no such role `bott`.", "Did you mean `bot`?", "no such role `bott`. Did you mean `bot`?"),
        ("known: a, b and 4 more", "Use one.", "known: a, b and 4 more. Use one."),
        ("what is that?", "Remove it.", "what is that? Remove it."),
        ("`a`, `b`…", "Shorten it.", "`a`, `b`… Shorten it."),
        ("not UTF-8", "", "not UTF-8."),
        ("", "Fix it.", "Fix it."),
        ("", "", ""),
    ],
)
def test_a_defect_is_told_in_sentences(what: str, fix: str, text: str) -> None:
    """What is wrong ends with a full stop, whoever wrote it."""
    assert str(Diagnostic(what, fix=fix)) == text


def test_a_defect_is_told_with_its_place() -> None:
    """As far as it is known."""
    assert str(Diagnostic("bad", "a.yaml", 3, 7)) == "a.yaml:3:7: bad."
    assert str(Diagnostic("bad", "a.yaml", 3)) == "a.yaml:3: bad."
    assert str(Diagnostic("bad", "a.yaml", 0, 7)) == "a.yaml: bad."
