"""Data of Unicode, as the script writes it from the files of an ICU release."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "unicode_data.py"
DATABASE = """\
ucd;17.0.0
value;sc;Cyrl;Cyrillic
value;sc;Latn;Latin
value;sc;Zyyy;Common
value;sc;Zzzz;Unknown
defaults;0000..10FFFF;gc=Cn;sc=Zzzz
block;0000..007F;gc=Cc;sc=Zyyy
cp;0007;Name_Alias=control=ALERT,abbreviation=BEL
cp;0020;gc=Zs;na=SPACE
cp;0061;gc=Ll;na=LATIN SMALL LETTER A;sc=Latn
block;0400..04FF;gc=Ll;sc=Cyrl
unassigned;0402..04FF
block;E000..E0FF;gc=Co;sc=Zzzz
block;1F600..1F601;gc=So;sc=Zyyy;ExtPict
cp;1F601;-ExtPict
block;2060..2060;gc=Cf;sc=Zyyy;DI
cp;2060;na=WORD JOINER
"""
CONFUSABLES = "\ufeff# Version: 17.0.0\n0430 ;\t0061 ;\tMA\t# x\n0031 ;\t006C ;\tMA\t# y\n"
LICENCE = "UNICODE LICENSE V3\n\nnotice\n\n----------\nanother licence\n"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("unicode_data", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_file_has_ranges_and_names(script: ModuleType) -> None:
    """Lines of code points override their block, and unassigned ones have the defaults."""
    lines = script.render(DATABASE, CONFUSABLES.lstrip("\ufeff"), LICENCE).splitlines()
    assert {
        "0007;alert",
        "2060;word joiner",
        "E000-E0FF;private use",
        "1F600",
        "0061;Latin",
        "0400-0401;Cyrillic",
        "0430;0061",
        "[version 17.0]",
        "# notice",
    } <= set(lines)
    assert lines.index("0031;006C") < lines.index("0430;0061")
    assert not [line for line in lines if line.startswith("0020;") or "another licence" in line]
    assert [line for line in lines if line.startswith("0402-") and line.endswith(";unassigned")]


@pytest.mark.parametrize(
    ("database", "confusables"),
    [
        (DATABASE, CONFUSABLES.replace("17.0.0", "16.0.0")),
        (DATABASE.replace("ucd;17", "ucd:17"), CONFUSABLES),
        (DATABASE, "# Version: 17.0.0\n"),
    ],
    ids=["two versions", "no version", "no rows"],
)
def test_files_of_another_form_are_refused(
    script: ModuleType, database: str, confusables: str
) -> None:
    """A file that is half read would let characters through."""
    with pytest.raises(script.UnicodeFileError):
        script.render(database, confusables.lstrip("\ufeff"), LICENCE)
