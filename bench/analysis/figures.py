"""Table and plot of `bench/results/analysis.json`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = ["plot", "table"]

_RUNS: Final = {
    "cold": "analysis, nothing kept",
    "one_policy_changed": "analysis after one changed policy, with `--cache`",
    "diff": "`authz diff` after one changed policy",
}
"""Runs that are shown, and their texts."""
_LEGEND: Final = {
    "cold": "analysis",
    "one_policy_changed": "analysis after one changed policy",
    "diff": "authz diff",
}
_WIDTH: Final = 720
_HEIGHT: Final = 380
_LEFT: Final = 70
_RIGHT: Final = 700
_TOP: Final = 60
_BOTTOM: Final = 320
_STYLE: Final = """
    .page { fill: #ffffff; stroke: #d0d7de }
    .grid { stroke: #d0d7de; stroke-width: 1 }
    .cold { stroke: #0969da; fill: #0969da }
    .one_policy_changed { stroke: #1a7f37; fill: #1a7f37 }
    .diff { stroke: #9a6700; fill: #9a6700 }
    polyline { fill: none !important; stroke-width: 2.5 }
    text { font: 14px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
    .small { font-size: 13px; fill: #57606a }
    @media (prefers-color-scheme: dark) {
      .page { fill: #0d1117; stroke: #30363d }
      .grid { stroke: #30363d }
      .cold { stroke: #58a6ff; fill: #58a6ff }
      .one_policy_changed { stroke: #3fb950; fill: #3fb950 }
      .diff { stroke: #d29922; fill: #d29922 }
      text { fill: #e6edf3 }
      .small { fill: #8b949e }
    }
  """


def table(measured: Mapping[str, Any]) -> str:
    """Return the table in Markdown.

    Args:
        measured: the results.
    """
    machine = measured["machine"]
    rows = [
        (
            f"{machine['cores']} cores of {machine['cpu']}, {machine['date']}, revision `{machine['revision']}`, "
            f"{machine['build_profile']} build of the analyzer; other work on the machine: load {measured['load']}."
        ),
        "",
        "| agents, operations, policies | run | questions | not decided | CPU time | wall time | peak memory |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for size in measured["rows"]:
        name = f"{size['agents']}, {size['operations']}, {size['policies']}"
        rows += [f"| {name} | {text} | {_cells(size[run])} |" for run, text in _RUNS.items()]
    return "\n".join(rows) + "\n"


def _cells(run: Mapping[str, Any]) -> str:
    asked = f"{run['questions']:,}"
    if run["questions_cached"]:
        asked += f", of which {run['questions'] - run['questions_cached']:,} are new"
    return (
        f"{asked} | {run['not_decided']:,} | {run['cpu_seconds']:.1f} s | {run['seconds']:.1f} s | "
        f"{run['peak_mb']} MB"
    )


def plot(measured: Mapping[str, Any]) -> str:
    """Return the CPU time by the size of the bundle as SVG, with a logarithmic scale of time; sizes stand side by side.

    Args:
        measured: the results.
    """
    sizes: Sequence[Mapping[str, Any]] = measured["rows"]
    seconds = [size[run]["cpu_seconds"] for size in sizes for run in _RUNS]
    low = math.floor(math.log10(max(min(seconds), 0.01)))
    high = max(low + 1, math.ceil(math.log10(max(seconds))))

    def across(at: int) -> float:
        return _LEFT + (_RIGHT - _LEFT) * (at + 0.5) / len(sizes)

    def up(value: float) -> float:
        share = (math.log10(max(value, 0.01)) - low) / (high - low)
        return _BOTTOM - (_BOTTOM - _TOP) * share

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-labelledby="title description">',
        '  <title id="title">CPU time of the analyzer by the size of the bundle</title>',
        f'  <desc id="description">{_description(sizes)}</desc>',
        f"  <style>{_STYLE}</style>",
        f'  <rect class="page" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{_HEIGHT - 1}" rx="6"/>',
    ]
    for power in range(low, high + 1):
        y = up(math.pow(10, power))
        lines += [
            f'  <line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{_RIGHT}" y2="{y:.1f}"/>',
            f'  <text class="small" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{math.pow(10, power):g} s</text>',
        ]
    for number, size in enumerate(sizes):
        x = across(number)
        below = [f"{size['agents']} agents", f"{size['operations']} op., {size['policies']} pol."]
        lines += [
            f'  <text class="small" x="{x:.1f}" y="{_BOTTOM + 20 + 18 * at}" text-anchor="middle">{text}</text>'
            for at, text in enumerate(below)
        ]
    for at, (run, text) in enumerate(_LEGEND.items()):
        points = [
            (across(number), up(size[run]["cpu_seconds"])) for number, size in enumerate(sizes)
        ]
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        lines.append(f'  <polyline class="{run}" points="{joined}"/>')
        lines += [f'  <circle class="{run}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in points]
        left = _LEFT + (0, 110, 380)[at]
        lines += [
            f'  <rect class="{run}" x="{left}" y="22" width="12" height="12"/>',
            f'  <text x="{left + 18}" y="33">{text}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"


def _description(sizes: Sequence[Mapping[str, Any]]) -> str:
    texts = (
        f"{size['agents']} agents: "
        + ", ".join(f"{text} {size[run]['cpu_seconds']:.1f} s" for run, text in _LEGEND.items())
        for size in sizes
    )
    return "; ".join(texts) + "."
