"""Writes what a bundle's tests came to as JUnit XML, for build servers."""

import xml.etree.ElementTree as ET
from pathlib import Path

from authz.bundle import TestResults

__all__ = ["write_junit"]


def write_junit(tests: TestResults, file: Path) -> None:
    """Write the report: each failure with its file and line.

    Steps that passed have no names: they are counted, and only failures are cases with a name. Failures beyond those that the
    engine lists are one case, with their number.

    Args:
        tests: Results of the tests.
        file: File to write.
    """
    suite = ET.Element(
        "testsuite",
        name="authz",
        tests=str(tests.passed + tests.skipped + tests.failed),
        failures=str(tests.failed),
        skipped=str(tests.skipped),
    )
    for failure in tests.failures:
        name = f"{failure.test}, step {failure.step}" if failure.test else failure.file
        attributes = {"file": failure.file, "line": str(failure.line)}
        case = ET.SubElement(
            suite, "testcase", attributes, name=_printable(name), classname=failure.file
        )
        said = _printable(str(failure.diagnostic()))
        ET.SubElement(case, "failure", message=said).text = said
    if tests.omitted:
        case = ET.SubElement(suite, "testcase", name="further failures", classname="authz")
        ET.SubElement(case, "failure", message=f"{tests.omitted} more failures")
    for number in range(1, tests.passed + 1):
        ET.SubElement(suite, "testcase", name=f"passed step {number}", classname="authz")
    ET.ElementTree(suite).write(file, encoding="unicode", xml_declaration=True)


def _printable(text: str) -> str:
    """Replace characters that XML 1.0 does not allow: names of tests are texts of the bundle."""
    return "".join(one if one.isprintable() or one in "\t\n" else "\ufffd" for one in text)
