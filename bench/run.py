"""Measures everything and writes `bench/results/*.json`.

    python -m bench.run              everything
    python -m bench.run --quick      about three minutes; results go to a temporary folder
    python -m bench.run --strict     exit status 2 where a threshold is missed

`make bench` builds what it needs. Exit status 1: something could not be measured.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

from bench import check, history, machine, micro, reload, tasks
from bench import credentials as task_credentials
from bench.load import bundle, credentials, requests, server
from bench.load.ghz import Ghz, LoadError
from bench.load.matrix import MIDDLE, QUICK, WHOLE, Bench, Extent
from bench.load.process import ProcessError

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("micro", "load", "reload", "tasks", "credentials", "history")
_SERVED = {"load", "reload"}


class RunError(RuntimeError):
    """What is needed to measure is missing or wrong."""


def main() -> int:
    """Runs the parts that were asked for.

    Returns:
        Exit status.
    """
    arguments = _arguments()
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="authz-bench-") as work:
            measured = _measure(_paths(Path(work), arguments), arguments)
    except (
        RunError,
        LoadError,
        ProcessError,
        micro.MicroError,
        task_credentials.CredentialsError,
    ) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    folder = Path(arguments.results) if arguments.results else _results(arguments)
    folder.mkdir(parents=True, exist_ok=True)
    for name, one in measured.items():
        (folder / f"{name}.json").write_text(json.dumps(one, indent=1, ensure_ascii=False) + "\n")
    say(f"results: {folder}; {time.monotonic() - started:.0f} s")
    verdicts = check.judge(check.thresholds(ROOT / "bench"), check.results(folder))
    for verdict in verdicts:
        print(verdict.line())
    return 2 if arguments.strict and any(verdict.met is not True for verdict in verdicts) else 0


def _measure(paths: server.Paths, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    profile = _profile(paths)
    if profile not in machine.RELEASED:
        raise RunError(f"{paths.extension} holds a {profile} build; run `make bench-build`")
    served = _SERVED & set(arguments.part)
    facts = machine.facts(ROOT, profile, paths.ghz if served else None)
    facts["extent"] = "quick" if arguments.quick else "whole"
    measured: dict[str, dict[str, Any]] = {}
    if "micro" in arguments.part:
        say("parts: criterion")
        measured["micro"] = {
            # criterion builds what it measures.
            "machine": {**facts, "build_profile": "release"},
            "rows": micro.run(ROOT, micro.BENCHES, quick=arguments.quick),
        }
    if "tasks" in arguments.part:
        extent = tasks.QUICK if arguments.quick else tasks.WHOLE
        found = tasks.run(paths, arguments.store, extent, say)
        measured["tasks"] = {"machine": facts, **found}
    if "credentials" in arguments.part:
        issued = task_credentials.QUICK if arguments.quick else task_credentials.WHOLE
        found = task_credentials.run(paths, issued, say)
        measured["credentials"] = {"machine": facts, **found}
    if "history" in arguments.part:
        remembered = history.QUICK if arguments.quick else history.WHOLE
        found = history.run(paths, arguments.sessions, remembered, say, quick=arguments.quick)
        measured["history"] = {"machine": facts, **found}
    if served:
        loads = QUICK if arguments.quick else WHOLE
        measured |= servers(paths, loads, facts, arguments.part)
    return measured


def say(text: str) -> None:
    """Prints a line at once."""
    print(text, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "authz"
    parser.add_argument(
        "--quick", action="store_true", help="short loads; not written to bench/results"
    )
    parser.add_argument("--strict", action="store_true", help="fail where a threshold is missed")
    parser.add_argument(
        "--part", action="append", choices=PARTS, help="only this part; may be repeated"
    )
    parser.add_argument("--results", help="folder for the results")
    parser.add_argument(
        "--extension", default=cache / "bench", type=Path, help="folder of the release build"
    )
    parser.add_argument(
        "--ghz", default=os.environ.get("GHZ", cache / "bin" / "ghz"), type=Path, help="ghz"
    )
    parser.add_argument(
        "--fast-floor",
        default=cache / "bench" / "programs" / "floor",
        type=Path,
        help="the fast lane's floor",
    )
    parser.add_argument(
        "--store",
        default=cache / "bench" / "programs" / "state",
        type=Path,
        help="the program that measures a store",
    )
    parser.add_argument(
        "--sessions",
        default=cache / "bench" / "programs" / "sessions",
        type=Path,
        help="the program that measures a store of sessions",
    )
    arguments = parser.parse_args()
    arguments.part = arguments.part or list(PARTS)
    return arguments


def _results(arguments: argparse.Namespace) -> Path:
    """Apart by kind: what stands in a folder is judged together."""
    if arguments.quick:
        return Path(tempfile.gettempdir()) / "authz-bench-quick"
    return ROOT / "bench" / "results"


def _paths(work: Path, arguments: argparse.Namespace) -> server.Paths:
    parts = set(arguments.part)
    for what, path, users in (
        ("the load generator", arguments.ghz, {*_SERVED, "credentials"}),
        ("the fast lane's floor", arguments.fast_floor, _SERVED),
        ("the program that measures a store", arguments.store, {"tasks"}),
        ("the program that measures sessions", arguments.sessions, {"history"}),
        ("the release build of the extension", arguments.extension / "authz", parts),
    ):
        if users & parts and not path.exists():
            raise RunError(f"{what} is not at {path}; `make bench` builds it")
    return server.Paths(
        root=ROOT,
        work=work,
        extension=arguments.extension.resolve(),
        fast_floor=arguments.fast_floor.resolve(),
        ghz=arguments.ghz.resolve(),
    )


def _profile(paths: server.Paths) -> str:
    """Asks the extension itself, in a process like the server's."""
    program = "from authz import engine; print(engine.build_profile())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=paths.work,
        env={**os.environ, "PYTHONPATH": str(paths.extension)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        raise RunError(f"the extension in {paths.extension} does not load: {done.stderr[-500:]}")
    return done.stdout.strip()


def servers(
    paths: server.Paths, extent: Extent, facts: dict[str, object], parts: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Starts a server for each bundle and the floors, and measures them side by side.

    Args:
        paths: where things stand.
        extent: how much.
        facts: of the machine.
        parts: `load`, `reload`, or both.

    Returns:
        By part what was measured, with the facts.

    Raises:
        RunError: a request is not permitted.
        ProcessError: a server did not start, or ended.
        LoadError: a load failed.
    """
    protos = requests.compile_protos(ROOT, paths.work / "protos.binpb")
    creds = credentials.mint(paths.work / "trust")
    bundles = {size: bundle.write(paths.work / f"bundle-{size}", size) for size in extent.bundles}
    data: dict[tuple[int, str], Path] = {}
    first: dict[str, bytes] = {}
    for (size, one), surface in product(bundles.items(), requests.METHODS):
        built = list(requests.messages(protos, surface, one, creds))
        if len(set(built)) != requests.REQUESTS:
            raise RunError(f"{surface}: the requests are not distinct")
        if size == MIDDLE:
            first[surface] = built[0]
        data[size, surface] = requests.write(paths.work / f"{surface}-{size}.bin", built)
    measured: dict[str, dict[str, Any]] = {}
    with ExitStack() as running:
        started = {}
        for size, one in bundles.items():
            began = time.monotonic()
            started[size] = server.server(paths, one, creds)
            running.enter_context(started[size].process)
            say(f"server on {size} policies: ready after {time.monotonic() - began:.1f} s")
        floors = server.floors(paths, _answers(protos, started[MIDDLE], first))
        for floor in floors.values():
            running.enter_context(floor.process)
        bench = Bench(Ghz(paths.ghz, protos.path), bundles, data, started, floors, say)
        bench.warm()
        if "load" in parts:
            found = bench.rows(extent)
            ratios = bench.pairs(extent)
            measured["load"] = {
                "machine": facts,
                **found,
                "ratios": ratios,
                "retaken": list(bench.retaken),
            }
        if "reload" in parts:
            reloads = 25 if extent == WHOLE else 2
            reloaded = reload.measure(bench, max(extent.bundles), reloads)
            measured["reload"] = {"machine": facts, **reloaded}
    return measured


def _answers(
    protos: requests.Protos, target: server.Target, first: dict[str, bytes]
) -> dict[str, bytes]:
    """Asks for a real answer of each surface, for the floors to repeat."""
    answers = {}
    for (surface, request), lane in product(first.items(), server.LANES):
        answers[surface] = server.ask(target.ports[lane], surface, request)
        wrong = server.permitted(protos, surface, answers[surface])
        if wrong:
            raise RunError(f"{lane} lane, {surface}: the first request is not permitted: {wrong}")
    return answers


if __name__ == "__main__":
    sys.exit(main())
