"""`authz schema cedar`: a stock Cedar tool checks the policies of a bundle with it."""

import json
from pathlib import Path
from typing import Any, Final

import cedarpy
import pytest

from authz.cli import main

ROOT: Final = Path(__file__).parents[2]
BUNDLES: Final = {
    "quickstart": ROOT / "examples" / "quickstart" / "bundle",
    "mail": ROOT / "bench" / "detection" / "mail" / "bundle",
    "code": ROOT / "bench" / "detection" / "code" / "bundle",
}


def schema(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """Return the schema that the command prints."""
    words = ["schema", "cedar", str(folder), "--var", "trust_domain=dev.example", *options]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    return capsys.readouterr().out


def policies(folder: Path) -> str:
    """Return all policies of a bundle."""
    return "\n".join(path.read_text() for path in sorted((folder / "policies").glob("*.cedar")))


def errors(text: str, schema_text: str | dict[str, Any]) -> list[str]:
    """Return what the stock validator says of policies."""
    found = cedarpy.validate_policies(text, schema_text)
    return [str(error) for error in found.errors]


@pytest.mark.parametrize("name", BUNDLES)
@pytest.mark.parametrize("form", ["text", "json"])
def test_the_stock_validator_accepts_the_policies(
    name: str, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In both forms of the schema; and it finds a misspelt role, argument and context key."""
    folder = BUNDLES[name]
    text = schema(folder, capsys, "--format", form)
    given = json.loads(text) if form == "json" else text
    own = policies(folder)
    assert errors(own, given) == []
    role = 'Role::"staff"' if name == "quickstart" else 'Role::"employee"'
    assert errors(own.replace(role, 'Role::"stranger"', 1), given)
    assert errors(own.replace("context.session.labels", "context.session.label", 1), given)
    assert errors(own + '\npermit(principal, action == Action::"no.such", resource);', given)


def test_wrong_use_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The message says what to give."""
    for words, says in (
        (["schema", "cedar"], "authz schema cedar BUNDLE"),
        (["schema", "config", "x"], "takes no folder"),
        (["schema", "cedar", str(BUNDLES["mail"]), "--format", "xml"], "text or json"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 1
        assert says in capsys.readouterr().err
