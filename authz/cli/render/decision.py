"""A decision with its trace, for people."""

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from authz.cli.render.terminal import OUTCOME_STYLES, Terminal

__all__ = ["print_decision"]


def print_decision(terminal: Terminal, decision: Mapping[str, Any]) -> None:
    """Print a decision with its trace, for people."""
    outcome = str(decision.get("outcome", "DENY"))
    head = Text(outcome, style=OUTCOME_STYLES.get(outcome, "")) + Text(
        f"  {decision.get('reason_code', '')}"
    )
    if decision.get("enforced") is False:
        head += Text("  observed only: the call passes", style="yellow")
    terminal.out.print(head)
    if message := decision.get("message"):
        terminal.line(f"  {message}")
    if rules := decision.get("rules"):
        terminal.line("  because of:")
    for rule in rules or ():
        terminal.line(f"    {_rule(rule)}")
    for name, label in (
        ("step_up_kinds", "show first"),
        ("obligations", "obligations"),
        ("own_obligations", "done by Authz"),
        ("exceptions", "because of exceptions"),
        ("controls", "controls"),
        ("uncleared_labels", "not cleared for"),
        ("sequences", "would complete"),
        ("budgets", "would exceed"),
    ):
        if listed := decision.get(name):
            terminal.line(f"  {label}: {', '.join(map(str, listed))}")
    _print_observed(terminal, decision)
    for name in ("tier", "resource", "destination_class", "chain"):
        if value := decision.get(name):
            said = " → ".join(map(str, value)) if isinstance(value, list) else str(value)
            terminal.line(f"  {name.replace('_', ' ')}: {said}")
    trace = decision.get("trace") or ()
    if trace:
        terminal.table(
            ("policy", "effect", "result", "principal", "where", "reason"),
            [
                (
                    str(judged.get("policy_id", "")),
                    f"{judged.get('effect', '')}{' (observed)' if judged.get('observed') else ''}",
                    str(judged.get("error") or judged.get("result", "")),
                    str(judged.get("principal", "")),
                    f"{judged.get('file', '')}:{judged.get('line', '')}",
                    str(judged.get("reason", "")),
                )
                for judged in trace
            ],
        )


def _print_observed(terminal: Terminal, decision: Mapping[str, Any]) -> None:
    """Print the policies with `@mode("observe")` that would have changed the outcome."""
    for policy in decision.get("observed_policies") or ():
        terminal.line(f"  observed {policy['policy_id']}: would be {policy['outcome']}")


def _rule(rule: Mapping[str, Any]) -> str:
    place = f" ({rule['file']}:{rule['line']})" if rule["file"] else ""
    return f"{str(rule['kind']).replace('_', ' ')} {rule['name']}{place}"
