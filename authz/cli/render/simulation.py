"""The text of a simulation."""

from collections.abc import Mapping
from typing import Any

from authz.cli.render.terminal import Terminal
from authz.tools.catalog.tool import plain

__all__ = ["print_simulation"]


def print_simulation(terminal: Terminal, document: Mapping[str, Any]) -> None:
    """Print a session, one step after the other.

    Args:
        terminal: Terminal to print on.
        document: The simulation, as in JSON.
    """
    for step in document["steps"]:
        for line in _lines(step):
            terminal.line(line)
    counts = document["counts"]
    terminal.line(
        f"{counts['calls']} calls: {counts['simulated']} simulated, {counts['permitted']} permitted, {counts['held']} held, "
        f"{counts['denied']} denied; {counts['observed']} let through by mode: observe"
    )
    if any("recorded" in step for step in document["steps"]):
        terminal.line(f"{counts['changed']} of them have another answer than in the log")
    if counts["not_understood"]:
        terminal.line(f"{counts['not_understood']} parts not understood:")
    for gap in document["not_understood"]:
        terminal.line(f"  line {gap['line']}: {plain(gap['what'], 300)}")
    if others := document["other_lines"]:
        listed = ", ".join(f"{number} {plain(name, 60)}" for name, number in others.items())
        terminal.line(f"no steps: {listed}")
    if not document["is_complete"]:
        terminal.line(
            "calls are missing, so labels, sequences and budgets of later steps may be too low"
        )


def _lines(step: Mapping[str, Any]) -> list[str]:
    head = f"{step['step']}. "
    if step["kind"] != "call":
        word = (
            "ok"
            if step["ok"]
            else f"{plain(step['reason_code'], 40)}: {plain(step['message'], 300)}"
        )
        return [f"{head}{step['kind']}: {word}"]
    head += plain(step["operation"], 120)
    if not step["ok"]:
        return [
            f"{head}: not simulated: {plain(step['reason_code'], 40)}: {plain(step['message'], 300)}"
        ]
    observed = "" if step["enforced"] else " (mode: observe lets it through)"
    lines = [f"{head}: {step['outcome']} {step['reason_code']}{observed}"]
    if step["outcome"] != "PERMIT":
        lines.append(f"   {plain(step['message'], 400)}")
    if step.get("is_changed"):
        recorded = step["recorded"]
        lines.append(
            f"   in the log: {plain(recorded['outcome'], 20)} {plain(recorded['reason_code'], 40)}"
        )
    rules = [
        f"{plain(rule['kind'], 40).replace('_', ' ')} {plain(rule['name'], 120)}"
        + (f" ({plain(rule['file'], 200)}:{rule['line']})" if rule["file"] else "")
        for rule in step["rules"]
    ] or [f"policy {plain(policy, 120)}" for policy in step["policies"]]
    if rules:
        lines.append(f"   by {', '.join(rules)}")
    before, after = step["labels_before"], step["labels_after"]
    if before or after:
        lines.append(f"   labels: {_labels(before)} → {_labels(after)}")
    return lines


def _labels(labels: list[str]) -> str:
    return plain(", ".join(labels), 300) or "none"
