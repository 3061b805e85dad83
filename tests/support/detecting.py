"""A bundle of the corpus' domain `mail` that is written down here, and scenarios for it."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from authz.engine import seal_catalog
from authz.model import BundleFiles
from authz.tools.catalog.files import render_catalog
from authz.tools.catalog.tool import read_listing
from bench.detection.scenario import Scenario, parse
from bench.detection.systems import SYSTEMS

PERMITS: Final = """
@id("assistant-may") permit(principal in Role::"assistant", action, resource)
unless { context.task.template == Template::"none" };
@id("people-may") permit(principal in Role::"employee", action, resource);
"""
NO_DATA_OUT: Final = """
@id("no-data-out") forbid(principal, action, resource) when { !context.uncleared_labels.isEmpty() };
"""
OWN_EVENTS: Final = """@id("ours") @stepup("confirm") forbid(principal, action == Action::"calendar.cancel_event", resource)
unless { [Origin::"named", Origin::"known", Origin::"made"].containsAll(context.origins.target) }
unless { context.satisfied.contains(Kind::"confirm") };"""
FACTS: Final[dict[str, Any]] = {
    "agents": {"assistant": ["spiffe://tidewater.example/agents/assistant"]},
    "subjects": {"employee": {"issuer": "corp", "claim": "groups", "contains": "employees"}},
    "labels": {
        "inside": {"kind": "confidentiality", "tier": "high"},
        "stranger": {"kind": "trust", "tier": "standard"},
    },
    "destinations": {
        "own": {"match": "*@tidewater.example", "clearance": ["inside"]},
        "other": {"match": "*", "clearance": []},
    },
    "templates": {
        "mail": {
            "purpose": "office work",
            "params": {"mailbox": "String"},
            "deadline": "1h",
            "tier_cap": "critical",
            "scope": [{"system": one.name} for one in SYSTEMS["mail"]],
        }
    },
}


@cache
def _catalog() -> Mapping[str, bytes]:
    files, accepted, classify = {}, {}, []
    for system in SYSTEMS["mail"]:
        listing = read_listing(json.dumps({"tools": system.listing()}))
        files[f"catalog/{system.name}.mcp.yaml"] = render_catalog(system.name, listing).encode()
        tools = [tool.document() for tool in listing.tools]
        sealed = seal_catalog(
            {"system": system.name, "server": {"name": "", "version": ""}, "tools": tools}
        )
        for tool in sealed["tools"]:
            operation = f"{system.name}.{tool['name']}"
            accepted[operation] = tool["digest"]
            rule: dict[str, Any] = {"match": operation, "effects": ["write"]}
            if tool["name"] in system.reading:
                rule["effects"] = ["read"]
            if operation == "files.read_file":
                rule["yields"] = ["inside"]
            if operation == "mail.read_email":
                rule["yields"] = ["stranger"]
            if operation == "mail.send_email":
                rule |= {
                    "effects": ["export"],
                    "tier": "standard",
                    "destination": {"from": ["/to", "/cc", "/bcc"], "type": "email"},
                }
            classify.append(rule)
    facts = {"accepted": accepted, "classify": classify}
    return {**files, "systems.yaml": json.dumps(facts).encode()}


def bundle(policies: str, **facts: Any) -> BundleFiles:
    """Returns a bundle of the domain.

    Args:
        policies: in Cedar.
        facts: that replace or add.
    """
    return BundleFiles(
        "bundle",
        {
            **_catalog(),
            "bundle.yaml": b"name: mail",
            "facts.yaml": json.dumps({**FACTS, **facts}).encode(),
            "policies/all.cedar": policies.encode(),
        },
    )


def knowing_events() -> BundleFiles:
    """Returns a bundle that asks before an event is cancelled which neither the user named nor the task made."""
    plain = bundle(PERMITS + OWN_EVENTS)
    facts = json.loads(plain.files["systems.yaml"])
    meaning = {
        "calendar.create_event": {"creates": {"id": "/id", "collection": "events"}},
        "calendar.cancel_event": {
            "effects": ["delete"],
            "objects": {"from": "/id", "role": "target", "collection": "events"},
        },
    }
    for rule in facts["classify"]:
        rule.update(meaning.get(rule["match"], {}))
    facts["catalog"] = {"calendar": {"kind": "mcp", "reports": "sdk"}}
    facts["resources"] = {"events": {}}
    return BundleFiles("bundle", {**plain.files, "systems.yaml": json.dumps(facts).encode()})


def scenario(*steps: Mapping[str, Any], **more: Any) -> Scenario:
    """Returns an honest scenario of the domain.

    Args:
        steps: as they stand in a file.
        more: what replaces or adds to a scenario of Dana's.
    """
    entry = {
        "id": "mail-tiny",
        "about": "A test.",
        "user": "dana",
        "prompt": "Write to bob@kestrel.example.",
        "params": {"mailbox": "dana@tidewater.example"},
        "steps": list(steps),
        "goal": {"some": "delivered"},
        **more,
    }
    return parse(entry, "mail", "honest")


def mail(to: str, **more: Any) -> dict[str, Any]:
    """Returns a step that sends something.

    Args:
        to: the recipient.
        more: of the step.
    """
    return {"call": "mail.send_email", "with": {"to": [to], "subject": "a", "body": "b"}, **more}


READ: Final = {"call": "files.read_file", "with": {"path": "/public/brochure.md"}}
