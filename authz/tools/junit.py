"""Writes what a bundle's tests came to as JUnit XML, for build servers."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from authz.context import CaseResult

__all__ = ["write_junit"]


def write_junit(cases: Sequence[CaseResult], file: Path) -> None:
    """Write the report.

    Args:
        cases: What each test came to.
        file: Where.
    """
    suite = ET.Element(
        "testsuite",
        name="authz",
        tests=str(len(cases)),
        failures=str(sum(not case.passed for case in cases)),
    )
    for case in cases:
        node = ET.SubElement(
            suite,
            "testcase",
            name=case.name,
            classname=case.file,
            file=case.file,
            line=str(case.line),
        )
        if not case.passed:
            ET.SubElement(node, "failure", message=case.message).text = case.message
    ET.ElementTree(suite).write(file, encoding="unicode", xml_declaration=True)
