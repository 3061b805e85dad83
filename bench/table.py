"""Writes the figures of pages, such as `docs/explanation/performance.md`, from `bench/results/*.json`.

python -m bench.table            writes them
python -m bench.table --check    fails if a page has other figures
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from bench import check
from bench.analysis import figures as analysis
from bench.cards import measure as cards
from bench.detection import figures
from bench.holes import figures as holes
from bench.machine import RELEASED

BEGIN = "<!-- bench: written by `python -m bench.table` -->"
END = "<!-- /bench -->"
ROOT = Path(__file__).resolve().parent.parent
PERFORMANCE = ROOT / "docs" / "explanation" / "performance.md"
"""Page of all figures."""
GROWTH = ROOT / "docs" / "images" / "analysis-growth.svg"
"""Plot of the analyzer's time by the size of the bundle."""

_OF_ANY_BUILD: Final = ("analysis", "cards", "detection", "holes", "revocation", "shadow")
"""Beginnings of the names of results that a development build may give."""


class TableError(RuntimeError):
    """The results cannot be published, or a page has no place for them."""


def render(limits: list[dict[str, Any]], measured: check.Results) -> str:
    """Returns the tables of the performance page, without markers.

    Args:
        limits: of `check.thresholds`.
        measured: of `check.results`.

    Raises:
        TableError: no load results, or results of a development build.
    """
    if "load" not in measured:
        raise TableError("bench/results/load.json is missing; `make bench` writes it")
    for name, one in measured.items():
        profile = one["machine"]["build_profile"]
        # How the engine was built changes how fast it decides, and neither what nor how fast a database tells other nodes. The figure of
        # a shadow bundle is a ratio of instructions of one build, and the table of the analyzer names its build.
        if not name.startswith(_OF_ANY_BUILD) and profile not in RELEASED:
            raise TableError(f"bench/results/{name}.json measured a {profile} build: not published")
    load = measured["load"]
    machine, versions = load["machine"], load["machine"]["versions"]
    lines = [
        (
            f"{machine['cores']} cores of {machine['cpu']}, Linux {machine['kernel']}, "
            f"grpcio {versions['grpcio']}, Python {versions['python']}; server and load generator share the cores; "
            f"{machine['date']}, revision `{machine['revision']}`, {machine['build_profile']} build."
        ),
        "",
        "| lane | asked over | policies | load | requests/s | p50 | p99 | server CPU a request | the transport's alone |",
        "|---|---|--:|---|--:|--:|--:|--:|--:|",
    ]
    lines += [
        _row(row) for row in load["rows"] if row["policies"] in _SHOWN or row["concurrency"] == 64
    ]
    lines += ["", "| goal | at most | measured | |", "|---|--:|--:|---|"]
    for verdict in check.judge(limits, measured):
        value = "-" if verdict.value is None else f"{verdict.value:g}"
        word = {True: "met", False: "**missed**", None: "not measured"}[verdict.met]
        lines.append(f"| {verdict.what} | {verdict.at_most:g} | {value} | {word} |")
    if "tasks" in measured:
        lines += ["", *_tasks(measured["tasks"])]
    if "history" in measured:
        lines += ["", *_history(measured["history"])]
    return "\n".join(lines) + "\n"


def render_line(measured: check.Results) -> str:
    """Returns the one line of the README, without markers.

    Raises:
        TableError: The results have no rows of both lanes.
    """
    load = measured["load"]
    rows = {
        (row["lane"], row["concurrency"]): row
        for row in load["rows"]
        if (row["surface"], row["policies"]) == ("check", 1_000)
    }
    if not {(lane, calls) for lane in ("python", "fast") for calls in (1, 64)} <= rows.keys():
        raise TableError("bench/results/load.json has no rows of both lanes")

    def speed(lane: str) -> str:
        rate, alone = rows[lane, 64]["rps"], rows[lane, 1]["p50_ms"]
        return f"{rate:,.0f} decisions a second and {alone:.2f} ms for one caller (p50)"

    return (
        f"**Speed**: {speed('python')}; in the fast lane {speed('fast')}. 64 calls at once, {load['machine']['cores']} cores that the "
        f"load generator shares, a guided build: [all figures](docs/explanation/performance.md).\n"
    )


_SHOWN = (1_000,)


def _row(row: Mapping[str, Any]) -> str:
    if row["concurrency"]:
        load = f"{row['concurrency']} at a time"
    else:
        load = f"{row['rate']:,}/s" + (", half of saturation" if row["half"] else "")
    return (
        f"| {row['lane']} | {row['surface']} | {row['policies']:,} | {load} | {row['rps']:,.0f} | "
        f"{row['p50_ms']:.2f} ms | {row['p99_ms']:.2f} ms | {row['server_cpu_us']:.0f} µs | {row['floor_cpu_us']:.0f} µs |"
    )


def _tasks(measured: Mapping[str, Any]) -> list[str]:
    machine = measured["machine"]
    lines = [
        (
            "What a task adds, in one process without transport, median of a call: "
            f"{machine['cores']} cores of {machine['cpu']}, Linux {machine['kernel']}; "
            f"{machine['date']}, revision `{machine['revision']}`, {machine['build_profile']} build."
        ),
        "",
        "| Check | state | without a task | on a task | ratio |",
        "|---|---|--:|--:|--:|",
    ]
    for ratio in measured["ratios"]:
        if ratio["time"] == "wall":
            without, on_task = (
                row["wall_us"]
                for task in (False, True)
                for row in measured["rows"]
                if (row["check"], row["state"], row["task"])
                == (ratio["ratio"], ratio["state"], task)
            )
            lines.append(
                f"| {ratio['ratio']} | {ratio['state']} | {without:.1f} µs | {on_task:.1f} µs | {ratio['median']:g} |"
            )
    return lines


def _history(measured: Mapping[str, Any]) -> list[str]:
    machine, callers = measured["machine"], measured["callers"]
    lines = [
        (
            "What a session's history adds to a Check on a task, likewise, for one caller (median of a call) and for "
            f"{callers} at once (from one answer to the next): {machine['cores']} cores of {machine['cpu']}, "
            f"Linux {machine['kernel']}; {machine['date']}, revision `{machine['revision']}`, "
            f"{machine['build_profile']} build."
        ),
        "",
        f"| Check | state | one caller | ratio | {callers} callers | ratio |",
        "|---|---|--:|--:|--:|--:|",
    ]
    ratios = {
        (one["state"], one["ratio"], one["time"]): one["median"] for one in measured["ratios"]
    }
    for row in measured["checks"]:
        cells = []
        for time in ("wall", "crowd"):
            ratio = ratios.get((row["state"], row["check"], time), 1)
            cells.append(f"{row[f'{time}_us']:.1f} µs | {ratio:g}")
        lines.append(f"| {_WORDS[row['check']]} | {row['state']} | {' | '.join(cells)} |")
    lines += [
        "",
        "| sessions | state | memory | recall, median | p99 |",
        "|--:|---|--:|--:|--:|",
    ]
    for store in measured["stores"]:
        recall = store["recall_us"]
        lines.append(
            f"| {store['sessions']:,} | {store['engine']} | {store['memory_bytes'] / 1e6:.0f} MB | "
            f"{recall['p50']:.1f} µs | {recall['p99']:.1f} µs |"
        )
    return lines


def _revocation(measured: Mapping[str, Any]) -> str:
    machine, last = measured["machine"], measured["last_permit_ms"]
    return (
        "| revocations | nodes | p50 | p99 | max | permits after the answer |\n"
        "|--:|--:|--:|--:|--:|---|\n"
        f"| {measured['revocations']:,} | {measured['nodes']} | {last['p50']:g} ms | {last['p99']:g} ms | {last['max']:g} ms | "
        f"after {measured['late']:,} of the revocations |\n"
        "\n"
        f"{machine['cores']} cores of {machine['cpu']}, Linux {machine['kernel']}, PostgreSQL {measured['postgresql']}; "
        f"{machine['date']}, revision `{machine['revision']}`, {machine['build_profile']} build.\n"
    )


_WORDS = {
    "stateless": "stateless",
    "reads": "depends on the session, and changes nothing",
    "changes": "changes the session",
}


def replaced(text: str, table: str) -> str:
    """Returns a text with the table between its markers.

    Raises:
        TableError: not exactly one pair of markers.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(END) < text.index(BEGIN):
        raise TableError(f"a page needs the lines {BEGIN} and {END} once, in this order")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table}{END}{rest.partition(END)[2]}"


def main() -> int:
    """Writes or checks the tables.

    Returns:
        Exit status: 1 if a page differs or there is nothing to publish.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.table", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    arguments = parser.parse_args()
    try:
        written = list(_pages())
    except TableError as error:
        print(f"bench.table: {error}", file=sys.stderr)
        return 1
    for page, text, wanted in written:
        if not arguments.check:
            page.write_text(wanted)
        elif wanted != text:
            name = page.relative_to(ROOT)
            print(f"bench.table: {name} differs; run `python -m bench.table`", file=sys.stderr)
            return 1
    return 0


def _pages() -> Iterator[tuple[Path, str, str]]:
    """Yields each page with figures, its text, and its text with the measured figures."""
    measured = check.results(ROOT / "bench" / "results")
    tables = {
        PERFORMANCE: render(check.thresholds(ROOT / "bench"), measured),
        ROOT / "README.md": render_line(measured),
    }
    if "detection" in measured:
        lines = figures.section(measured["detection"])
        tables[ROOT / "bench" / "detection" / "README.md"] = "\n".join(lines) + "\n"
    if "cards" in measured:
        lines = cards.table(measured["cards"])
        tables[ROOT / "docs" / "concepts" / "approval-card.md"] = "\n".join(lines) + "\n"
    if "holes" in measured:
        tables[ROOT / "bench" / "holes" / "README.md"] = holes.table(measured["holes"])
    if "revocation" in measured:
        tables[ROOT / "docs" / "reference" / "revocation.md"] = _revocation(measured["revocation"])
    if "analysis" in measured:
        tables[ROOT / "docs" / "reference" / "analyze.md"] = analysis.table(measured["analysis"])
        yield GROWTH, GROWTH.read_text(), analysis.plot(measured["analysis"])
    for page, table in tables.items():
        text = page.read_text()
        yield page, text, replaced(text, table)


if __name__ == "__main__":
    sys.exit(main())
