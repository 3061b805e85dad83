"""A small bundle whose tests reach some of its parts, and defend some of its policies."""

from pathlib import Path

AGENT = "spiffe://a.example/ns/desk/sa/bot"

FILES = {
    "bundle.yaml": "name: small\ntasks: optional\n",
    "facts.yaml": """\
agents: {bots: ["spiffe://a.example/ns/desk/sa/*"]}
destinations: {external: {match: "*", clearance: []}}
catalog:
  crm: {kind: http, operations: {get: {}, list: {}, drop: {}, export: {}}}
classify:
  - {match: crm.get, effects: [read], tier: low}
  - {match: crm.list, effects: [read], tier: low}
  - {match: crm.drop, effects: [delete], tier: low}
  - {match: crm.export, effects: [read], tier: standard}
budgets: {reads: {count: crm.get, most: 100}}
""",
    "policies/all.cedar": """\
@id("may") permit(principal in Role::"bots", action, resource);

@id("no-drops") @control("ASI02,AML.T0101,OWN-1") @reason("nothing is dropped")
forbid(principal, action == Action::"crm.drop", resource);

@id("one-lock") @control("ASI05")
forbid(principal, action == Action::"crm.list", resource);

@id("other-lock") @control("ASI05")
forbid(principal, action in [Action::"crm.list"], resource);

@id("never-run") @control("ASI06,NHI5")
forbid(principal, action == Action::"crm.export", resource);
""",
    "tests/all.yaml": f"""\
fixtures: {{agents: {{bot: '{AGENT}'}}}}
tests:
  - {{case: reads are permitted, as: {{agent: bot}}, call: crm.get, expect: PERMIT}}
  - {{case: drops are denied, as: {{agent: bot}}, call: crm.drop, expect: DENY}}
  - {{case: lists are denied, as: {{agent: bot}}, call: crm.list, expect: DENY}}
""",
}


def write_bundle(folder: Path, **changes: str) -> Path:
    """Writes the bundle.

    Args:
        folder: A folder that is not there yet.
        changes: Other contents, by the name of the file without folder and suffix; of `tests` and `policies`.
    """
    names = {"tests": "tests/all.yaml", "policies": "policies/all.cedar"}
    files = {**FILES, **{names[name]: text for name, text in changes.items()}}
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
