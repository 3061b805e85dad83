"""Figures of the plays: sums, tables, and their details."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

COUNTED: Final = (
    "attacks",
    "attacks_reached",
    "attacks_reached_without_history",
    "attacks_reached_each_step_alone",
    "honest_tasks",
    "honest_reached",
    "honest_steps",
    "honest_steps_denied",
    "honest_steps_skipped",
    "step_ups",
)
"""What is counted in each domain, and has a column of the table."""
BESIDE: Final = ("attacks_decidable", "attacks_reached_decidable", "honest_tasks_held", "questions")
"""What is counted besides."""
OF_MODE: Final = (
    "attacks_reached",
    "attacks_reached_decidable",
    "honest_reached",
    "honest_steps_denied",
    "honest_tasks_held",
    "questions",
)
"""What is counted again in another mode: where somebody agrees to every step that is held, or nothing is reported."""


def total(domains: list[dict[str, Any]]) -> dict[str, Any]:
    """Adds up the domains.

    Args:
        domains: of `measure.measure`.
    """
    found: dict[str, Any] = {key: sum(one[key] for one in domains) for key in (*COUNTED, *BESIDE)}
    attacks, tasks = found["attacks"], found["honest_tasks"]
    return {
        **found,
        "attacks_undecidable": _all(domains, "attacks_undecidable"),
        **{
            mode: {key: sum(one[mode][key] for one in domains) for key in OF_MODE}
            for mode in ("careless", "without_reports")
            if all(mode in one for one in domains)
        },
        "attacks_reached_share": round(found["attacks_reached"] / attacks, 4),
        "stopped_without_history_share": round(
            1 - found["attacks_reached_without_history"] / attacks, 4
        ),
        "step_ups_per_honest_task": round(found["step_ups"] / tasks, 4),
        "tasks_end_for_good": {
            key: sum(one["tasks_end_for_good"][key] for one in domains)
            for key in ("attacks_reached", "honest_steps_denied")
        },
    }


def table(domains: list[dict[str, Any]]) -> Iterator[str]:
    """Yields the lines of a Markdown table: a row for each domain, and their sum.

    Args:
        domains: of `measure.measure`.
    """
    yield (
        "| domain | attacks | reach their goal | … without rules about history | … each step alone | "
        "honest tasks | done | steps | denied | not asked | held |"
    )
    yield "|---" + "|--:" * len(COUNTED) + "|"
    summed = {key: sum(one[key] for one in domains) for key in COUNTED}
    for one in [*domains, {"domain": "**all**", **summed}]:
        yield f"| {one['domain']} | " + " | ".join(str(one[key]) for key in COUNTED) + " |"


def questions_table(domains: list[dict[str, Any]]) -> Iterator[str]:
    """Yields the lines of a Markdown table: questions to people, and the results if they agree to all.

    Args:
        domains: of `measure.measure`.
    """
    yield (
        "| domain | attacks | … of them decidable | reach their goal | … of the decidable | honest tasks | held | questions | "
        "everything approved: reach their goal | … of the decidable | done | questions |"
    )
    yield "|---" + "|--:" * 11 + "|"
    for one in [*domains, {"domain": "**all**", **total(domains)}]:
        counts = [
            *(one[key] for key in ("attacks", "attacks_decidable")),
            *(one[key] for key in ("attacks_reached", "attacks_reached_decidable")),
            *(one[key] for key in ("honest_tasks", "honest_tasks_held", "questions")),
            *(one["careless"][key] for key in ("attacks_reached", "attacks_reached_decidable")),
            *(one["careless"][key] for key in ("honest_reached", "questions")),
        ]
        yield f"| {one['domain']} | " + " | ".join(map(str, counts)) + " |"


def memory_table(found: Mapping[str, Any]) -> Iterator[str]:
    """Yields the lines of a Markdown table: questions for each user and day, a row for each kind of isolation.

    Args:
        found: of `memory.measure`.
    """
    columns = {**found["domains"], "all": found["days"]}
    if "fleet" in found:
        columns[f"{found['fleet_users']:,} users"] = found["fleet"]
    yield "| `isolated` | " + " | ".join(columns) + " |"
    yield "|---" + "|--:" * len(columns) + "|"
    for kind in found["days"]:
        values = (f"{of[kind]['questions_per_user_day']:.2f}" for of in columns.values())
        yield f"| `{kind}` | " + " | ".join(values) + " |"


def told(found: dict[str, Any]) -> Iterator[str]:
    """Yields what stands behind a domain's figures, a line each.

    Args:
        found: of `measure.measure`.
    """
    yield f"{found['domain']}: {len(found['reached'])} attacks reach their goal"
    yield from (f"  {one}" for one in found["reached"])
    stopped = found["stopped_without_history"]
    yield f"{found['domain']}: {len(stopped)} attacks are stopped without rules about history"
    yield from (f"  {one}" for one in stopped)
    for kind, word in (("honest_denied", "denied"), ("honest_held", "held")):
        yield f"{found['domain']}: {len(found[kind])} honest steps are {word}"
        for one in found[kind]:
            because = ", ".join(one["policies"]) or f"{one['code']}: {one['message']}"
            yield f"  {one['scenario']}, step {one['step']}, {one['operation']}: {because}"
    yield f"{found['domain']}: {len(found['careless']['reached'])} attacks reach their goal where every step that is held is approved"
    yield from (f"  {one}" for one in found["careless"]["reached"])
    yield f"{found['domain']}: what refused steps of attacks"
    yield from (f"  {count:4} {name}" for name, count in found["refusals_of_attacks"].items())


def section(found: Mapping[str, Any]) -> list[str]:
    """Returns what a README says of a result, in lines of Markdown.

    Args:
        found: `bench/results/detection.json`.
    """
    machine, domains, ended = found["machine"], found["domains"], found["tasks_end_for_good"]
    lines = [
        f"{machine['date']}, revision `{machine['revision']}`, corpus `{found['corpus'][:12]}`.",
        "",
        *table(domains),
        "",
        (
            f"{_percent(found['attacks_reached_share'])} of the attacks reach their goal. The static part of the bundles alone "
            f"stops {_percent(found['stopped_without_history_share'])}. An honest task is held "
            f"{found['step_ups_per_honest_task']:.2f} times. Were tasks that have ended by themselves not given again, "
            f"{ended['attacks_reached']} attacks would reach their goal, and {ended['honest_steps_denied']} honest "
            "steps be denied."
        ),
        "",
        "| class of attacks | attacks | reach their goal |",
        "|---|--:|--:|",
        *(f"| {name} | {one['attacks']} | {one['reached']} |" for name, one in classes(domains)),
    ]
    # Results of earlier revisions have none.
    if "careless" in found:
        lines += ["", "**Questions, and what comes of a careless answer**", ""]
        lines += questions_table(domains)
        if "without_reports" in found:
            untold = found["without_reports"]
            lines += [
                "",
                (
                    f"Without reports of what came of a call, {untold['attacks_reached']} attacks reach their goal, "
                    f"{untold['honest_reached']} honest tasks are done, and there are {untold['questions']} questions."
                ),
            ]
        undecidable = ", ".join(f"`{one}`" for one in found["attacks_undecidable"]) or "none"
        lines += [
            "",
            f"Attacks that differ from an honest task by words alone, so that no rule over calls decides: {undecidable}.",
        ]
    if "memory" in found:
        lines += ["", "**Questions for each user and day**", "", *memory_table(found["memory"])]
    for title, rows in (
        (
            "Attacks that reach their goal",
            [", ".join(f"`{one}`" for one in _all(domains, "reached"))],
        ),
        (
            "Attacks that are stopped without rules about history",
            [", ".join(f"`{one}`" for one in _all(domains, "stopped_without_history"))],
        ),
        ("Honest steps that are denied", _steps(_all(domains, "honest_denied"))),
        ("Honest steps that are held", _steps(_all(domains, "honest_held"))),
    ):
        listed = [f"- {one}" for one in rows if one]
        lines += ["", f"**{title}**", "", *(listed or ["- none"])]
    return lines


def classes(domains: list[dict[str, Any]]) -> list[tuple[str, dict[str, int]]]:
    """Returns the counts of each class of attacks over all domains, by name.

    Args:
        domains: of `measure.measure`.
    """
    found: dict[str, dict[str, int]] = {}
    for of in domains:
        for name, one in of["classes"].items():
            sums = found.setdefault(name, dict.fromkeys(one, 0))
            for key, count in one.items():
                sums[key] += count
    return sorted(found.items())


def _all(domains: list[dict[str, Any]], key: str) -> list[Any]:
    return [one for of in domains for one in of[key]]


def _steps(steps: list[dict[str, Any]]) -> list[str]:
    """By what refused them: scenarios, with the numbers of their steps."""
    found: dict[str, dict[str, list[str]]] = {}
    for one in steps:
        for name in one["policies"] or [one["code"]]:
            found.setdefault(name, {}).setdefault(one["scenario"], []).append(str(one["step"]))
    return [
        f"`{name}`: " + ", ".join(f"`{of}` {' '.join(numbers)}" for of, numbers in where.items())
        for name, where in sorted(found.items())
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
