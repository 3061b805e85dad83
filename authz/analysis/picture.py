"""Pictures of a path: Mermaid source, and SVG without scripts or anything to fetch.

Both show three layers: the caller, the calls in their order, and the resource or destination of each call. The picture follows from the
finding alone, so that it changes only with the finding.
"""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from itertools import groupby, pairwise
from typing import Final

from authz.analysis.report import Finding, Step
from authz.analysis.texts import compact_json, inert

__all__ = ["mermaid_picture", "svg_picture"]

_MOST_STEPS: Final = 60
_MOST_LABEL: Final = 120
# Characters with a meaning inside a quoted label (ends of strings, tags, references, comments, formulas and marks of Markdown), and characters
# that look like them. Renderers differ in how they read character references, so none is written.
_LOOKALIKES: Final = str.maketrans(
    {'"': "\u201d", "`": "\u2019", "<": "\u2039", ">": "\u203a"}
    | {one: chr(ord(one) + 0xFEE0) for one in "#$%&;\\"}
)
_OUTCOMES: Final = {"PERMIT": "permit", "STEP_UP": "held", "DENY": "denied"}


def mermaid_picture(finding: Finding) -> str:
    """Draw a path as a Mermaid flowchart. It is empty where the finding has no path.

    Args:
        finding: The finding.

    Returns:
        Mermaid source. In strings of the bundle, similar characters stand for those with a meaning in Mermaid.
    """
    steps = finding.path[:_MOST_STEPS]
    if not steps:
        return ""
    lines = ["flowchart LR"]
    for number, (caller, calls) in enumerate(_callers(steps), 1):
        lines.append(f'  a{number}(["{_mermaid(caller)}"])')
        lines.append(f"  a{number} --> s{calls[0].step}")
    for step in steps:
        lines.append(f'  s{step.step}["{"<br/>".join(map(_mermaid, _call_lines(step)))}"]')
        lines.append(f"  class s{step.step} {_style(step)}")
        if target := _target(step):
            lines.append(f'  t{step.step}[/"{_mermaid(target)}"/]')
            lines.append(f"  s{step.step} -.-> t{step.step}")
    for before, after in pairwise(steps):
        carried = ", ".join(before.labels_after)
        label = f'|"{_mermaid(carried)}"|' if carried else ""
        lines.append(f"  s{before.step} ==>{label} s{after.step}")
    if left := len(finding.path) - len(steps):
        lines.append(f'  more["{left} more steps"]')
        lines.append(f"  s{steps[-1].step} ==> more")
    lines += [
        "  classDef permit fill:#dafbe1,stroke:#1a7f37,color:#1f2328",
        "  classDef held fill:#fff8c5,stroke:#9a6700,color:#1f2328",
        "  classDef denied fill:#ffebe9,stroke:#cf222e,color:#1f2328",
        "  classDef pivot fill:#ffebe9,stroke:#cf222e,stroke-width:4px,color:#1f2328",
    ]
    return "\n".join(lines) + "\n"


def _mermaid(text: str) -> str:
    return inert(text, _MOST_LABEL).translate(_LOOKALIKES)


def _style(step: Step) -> str:
    return "pivot" if step.is_pivot else _OUTCOMES.get(step.outcome.upper(), "denied")


def _callers(steps: tuple[Step, ...]) -> Iterator[tuple[str, list[Step]]]:
    """Yield each run of calls of one caller."""
    for caller, calls in groupby(steps, _caller):
        yield caller, list(calls)


def _caller(step: Step) -> str:
    if step.template:
        return f"{step.caller} ({step.template})"
    return step.caller or "unknown caller"


def _call_lines(step: Step) -> list[str]:
    lines = [f"{step.step}. {step.operation}"]
    if step.input:
        lines.append(compact_json(step.input))
    lines.append(step.answer)
    if step.new_labels:
        lines.append(f"session gets {', '.join(step.new_labels)}")
    if step.is_pivot:
        lines.append("pivot: cut here")
    return lines


def _target(step: Step) -> str:
    return " at ".join(part for part in (step.resource, step.destination) if part)


_FONT: Final = 13
_CHARACTER: Final = 7.9
_LINE: Final = 18
_PADDING: Final = 10
_GAP: Final = 34
_MARGIN: Final = 16
_COLUMN_GAP: Final = 56
_CALLER_WIDTH: Final = 210
_CALL_WIDTH: Final = 330
_TARGET_WIDTH: Final = 230
_CALL_X: Final = _MARGIN + _CALLER_WIDTH + _COLUMN_GAP
_TARGET_X: Final = _CALL_X + _CALL_WIDTH + _COLUMN_GAP
_WIDTH: Final = _TARGET_X + _TARGET_WIDTH + _MARGIN
_MOST_LINES: Final = 4
_STYLE: Final = """
svg { background: #ffffff; }
text { font: 13px ui-monospace, Menlo, Consolas, monospace; fill: #1f2328; }
text.title { font: 600 14px system-ui, sans-serif; }
text.small { font: 12px system-ui, sans-serif; fill: #59636e; }
rect { stroke-width: 1.5; }
rect.caller { fill: #ddf4ff; stroke: #0969da; }
rect.permit { fill: #dafbe1; stroke: #1a7f37; }
rect.held { fill: #fff8c5; stroke: #9a6700; }
rect.denied { fill: #ffebe9; stroke: #cf222e; }
rect.pivot { fill: #ffebe9; stroke: #cf222e; stroke-width: 4; }
rect.target { fill: #f6f8fa; stroke: #59636e; stroke-dasharray: 5 3; }
path { fill: none; stroke: #59636e; stroke-width: 1.5; }
path.flow { stroke: #1f2328; stroke-width: 2.5; }
path.weak { stroke-dasharray: 5 3; }
"""
_ARROW: Final = (
    '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0 L8 4 L0 8 z" style="fill:#59636e;stroke:none"/></marker></defs>'
)


@dataclass(frozen=True, slots=True)
class _Box:
    """A rectangle with lines of text."""

    x: int
    y: int
    width: int
    lines: tuple[str, ...]
    style: str

    @property
    def height(self) -> int:
        return len(self.lines) * _LINE + 2 * _PADDING

    @property
    def middle(self) -> int:
        return self.y + self.height // 2

    @property
    def bottom(self) -> int:
        return self.y + self.height


def svg_picture(finding: Finding) -> str:
    """Draw a path as SVG. It is empty where the finding has no path.

    Args:
        finding: The finding.

    Returns:
        A document without scripts, links and foreign content. It has a title and a description for readers that cannot see it.
    """
    steps = finding.path[:_MOST_STEPS]
    if not steps:
        return ""
    heading = _wrapped(f"{finding.rule}: {finding.message}", 116, 3)
    y = _MARGIN + len(heading) * _LINE + _GAP // 2
    parts: list[str] = []
    calls: list[_Box] = []
    for step in steps:
        call = _call_box(step, y)
        target = _target_box(step, call)
        calls.append(call)
        parts += _drawn(call)
        if target is not None:
            parts += _drawn(target)
            parts.append(
                f'<path class="weak" marker-end="url(#arrow)" d="M{_CALL_X + _CALL_WIDTH} {call.middle} H{_TARGET_X - 4}"/>'
            )
        y = max(call.bottom, target.bottom if target else 0) + _GAP
    for before, (box, below) in zip(steps, pairwise(calls), strict=False):
        middle = _CALL_X + _CALL_WIDTH // 2
        parts.append(
            f'<path class="flow" marker-end="url(#arrow)" d="M{middle} {box.bottom} V{below.y - 5}"/>'
        )
        if before.labels_after:
            carried = inert(", ".join(before.labels_after), 40)
            parts.append(_text(middle + 10, box.bottom + 21, carried, "small"))
    parts += _callers_drawn(steps, calls)
    footer = list(_cut_lines(finding, len(steps)))
    for line in footer:
        parts.append(_text(_MARGIN, y, line, "small"))
        y += _LINE
    title = [
        _text(_MARGIN, _MARGIN + (number + 1) * _LINE - 4, line, "title")
        for number, line in enumerate(heading)
    ]
    return _document(finding, title + parts, y + _MARGIN)


def _call_box(step: Step, y: int) -> _Box:
    lines = tuple(
        line for part in _call_lines(step) for line in _wrapped(part, _fit(_CALL_WIDTH), 3)
    )
    return _Box(_CALL_X, y, _CALL_WIDTH, lines, _style(step))


def _target_box(step: Step, call: _Box) -> _Box | None:
    target = _target(step)
    if not target:
        return None
    lines = tuple(_wrapped(target, _fit(_TARGET_WIDTH), _MOST_LINES))
    height = len(lines) * _LINE + 2 * _PADDING
    return _Box(_TARGET_X, max(call.middle - height // 2, call.y), _TARGET_WIDTH, lines, "target")


def _callers_drawn(steps: tuple[Step, ...], calls: list[_Box]) -> list[str]:
    parts: list[str] = []
    place = 0
    for caller, group in _callers(steps):
        first = calls[place]
        lines = tuple(_wrapped(caller, _fit(_CALLER_WIDTH), _MOST_LINES))
        height = len(lines) * _LINE + 2 * _PADDING
        box = _Box(
            _MARGIN, max(first.middle - height // 2, first.y), _CALLER_WIDTH, lines, "caller"
        )
        parts += _drawn(box)
        for call in calls[place : place + len(group)]:
            bend = _MARGIN + _CALLER_WIDTH + _COLUMN_GAP // 2
            parts.append(
                f'<path marker-end="url(#arrow)" d="M{_MARGIN + _CALLER_WIDTH} {box.middle} H{bend} V{call.middle} H{_CALL_X - 4}"/>'
            )
        place += len(group)
    return parts


def _cut_lines(finding: Finding, shown: int) -> Iterator[str]:
    if left := len(finding.path) - shown:
        yield f"{left} more steps are not drawn."
    if finding.cut is None:
        return
    yield f"{finding.cut.title.capitalize()}:"
    for change in finding.cut.changes:
        yield inert(f"  {change}", 130)


def _drawn(box: _Box) -> list[str]:
    rectangle = f'<rect class="{box.style}" x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" rx="6"/>'
    lines = [
        _text(box.x + _PADDING, box.y + _PADDING + (number + 1) * _LINE - 5, line)
        for number, line in enumerate(box.lines)
    ]
    return [rectangle, *lines]


def _text(x: int, y: int, text: str, style: str = "") -> str:
    given = f' class="{style}"' if style else ""
    return f'<text{given} x="{x}" y="{y}" xml:space="preserve">{escape(text)}</text>'


def _fit(width: int) -> int:
    return int((width - 2 * _PADDING) / _CHARACTER)


def _wrapped(text: str, width: int, most: int) -> list[str]:
    """Break a text into lines; the last one says that text is missing."""
    lines = textwrap.wrap(inert(text, width * most + 1), width, break_on_hyphens=False) or [""]
    if len(lines) > most:
        return [*lines[: most - 1], lines[most - 1][: width - 1] + "…"]
    return lines


def _document(finding: Finding, parts: list[str], height: int) -> str:
    description = "; ".join(
        f"{_caller(step)} calls {step.operation}: {step.answer}"
        for step in finding.path[:_MOST_STEPS]
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
        f'height="{height}" aria-labelledby="title description">'
    )
    return "\n".join(
        [
            head,
            f'<title id="title">{escape(inert(finding.message))}</title>',
            f'<desc id="description">{escape(inert(description, 4_000))}</desc>',
            f"<style>{_STYLE}</style>",
            _ARROW,
            *parts,
            "</svg>",
            "",
        ]
    )
