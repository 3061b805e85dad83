"""Reports of an analysis, as the analyzer writes them, and programs in the place of the analyzer."""

import json
from pathlib import Path
from typing import Any, Final

from authz import __version__

__all__ = [
    "HOSTILE",
    "finding",
    "report_bytes",
    "report_document",
    "step",
    "write_analyzer",
]

HOSTILE: Final = (
    "]](http://evil.example)\x1b[31m\n::error::x <script>alert(1)</script> @all `|` {0} \u202egnp"
)
"""A string that tries to be markup, a link, a command of a log, a script, a placeholder and text in another order."""


def write_analyzer(folder: Path, script: str, version: str = __version__) -> Path:
    """Write an analyzer that runs a shell script for each subcommand.

    Args:
        folder: Folder of the program.
        script: Commands of sh; `$1` is the subcommand.
        version: Answer to `--version`.

    Returns:
        The program.
    """
    program = folder / "authz-analyze"
    program.write_text(
        f'#!/bin/sh\nif [ "$1" = --version ]; then echo "authz-analyze {version} debug"; exit; fi\n{script}'
    )
    program.chmod(0o755)
    return program


def step(number: int, operation: str, **members: Any) -> dict[str, Any]:
    """Make a step of a path."""
    return {
        "step": number,
        "agent": "spiffe://corp.example/sa/support",
        "subject": "ann",
        "template": "desk",
        "operation": operation,
        "input": {},
        "resource": "",
        "destination": "",
        "labels_before": [],
        "labels_after": [],
        "outcome": "permit",
        "reason_code": "",
        "rules": ["reads"],
        "is_pivot": False,
        "note": "",
        **members,
    }


def finding(number: int, **members: Any) -> dict[str, Any]:
    """Make a finding with an id of its own."""
    return {
        "id": f"{number:016x}",
        "rule": "toxic-combination",
        "severity": "error",
        "verdict": "path_found",
        "message": "One session reads customers, reads a web page and sends mail to anybody.",
        "assumptions": [],
        "policies": ["mail-out"],
        "location": {"file": "policies/mail.cedar", "line": 3, "column": 5},
        "path": [
            step(1, "crm.read", labels_after=["pii"], resource="customers/7"),
            step(2, "web.fetch", labels_before=["pii"], labels_after=["pii", "untrusted"]),
            step(
                3,
                "mail.send",
                labels_before=["pii", "untrusted"],
                labels_after=["pii", "untrusted"],
                input={"to": "eve@evil.example"},
                destination="external",
                is_pivot=True,
            ),
        ],
        "cut": {
            "exact": True,
            "changes": [
                {
                    "kind": "add_forbid",
                    "text": "forbid mail.send to external destinations after untrusted",
                    "file": "policies/mail.cedar",
                    "line": 3,
                }
            ],
        },
        "case": "tests:\n  - case: pii stays inside\n",
        **members,
    }


def report_document(*findings: dict[str, Any], **members: Any) -> dict[str, Any]:
    """Make a report."""
    return {
        "version": 1,
        "bundle": {"name": "company", "digest": "ab" * 32},
        "solver": {"name": "cvc5", "version": "1.4.2"},
        "counts": {
            "policies": 12,
            "operations": 30,
            "principals": 4,
            "assertions": 2,
            "questions": 120,
            "questions_cached": 20,
            "not_decided": 0,
        },
        "findings": list(findings),
        "proved": [
            {"rule": "assertion:a", "subject": "a", "assumptions": ["enforcers report labels"]}
        ],
        **members,
    }


def report_bytes(*findings: dict[str, Any], **members: Any) -> bytes:
    """Make a report, as the analyzer prints it."""
    return json.dumps(report_document(*findings, **members)).encode()
