"""Reload of the largest bundle with ten changed policies, while decisions go on."""

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import grpc

from authz_client.v1 import admin_pb2, admin_pb2_grpc
from bench.load.ghz import Load, LoadError, Sample, summary
from bench.load.matrix import Bench

RATE = 1_000
CHANGED = 10
_PAUSE_SECONDS = 1.5
_BUSY_SECONDS = 3.0
_APART_SECONDS = 0.1


def measure(bench: Bench, policies: int, reloads: int) -> dict[str, object]:
    """Reloads a server's bundle several times at 1,000 decisions a second on the Python lane.

    Args:
        bench: what runs.
        policies: size of the bundle.
        reloads: how often.

    Returns:
        For `bench/results/reload.json`: the median time, and the p99 within and outside the reloads; of each reload the p99 within it
        over the p99 between its neighbours and it, and the median of these ratios; beside it the p99 while a process that has
        nothing to do with the server computes, which is what two processors come to.

    Raises:
        LoadError: a request failed, or a reload was refused.
    """
    target, surface = bench.servers[policies], "check"
    seconds = 4 + reloads * 3.0
    load = Load(0, RATE, seconds)
    within: list[tuple[float, float]] = []
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(
            bench.ghz.samples,
            surface,
            bench.data[policies, surface],
            target.ports["python"],
            load,
        )
        time.sleep(2.5)
        for turn in range(reloads):
            _change(bench.bundles[policies].folder, turn)
            within.append(_reload(target.admin))
            time.sleep(_PAUSE_SECONDS)
            if sending.done():
                break
        sent = sending.result()
    if failed := summary(sent).errors:
        raise LoadError(f"requests failed: {failed}")
    # The first second warms up.
    pairs = around(within, sent, min(one.at for one in sent) + 1)
    if not pairs:
        raise LoadError("no reload ended while requests were sent")
    during, beside = zip(*pairs, strict=True)
    inside, outside = (
        summary([one for part in parts for one in part]) for parts in (during, beside)
    )
    ratios = [summary(mine).p99_ms / summary(others).p99_ms for mine, others in pairs]
    times = [end - start for start, end in within]
    busy = _beside_busy(bench, policies)
    bench.say(
        f"reload of {policies} policies, {CHANGED} changed: {statistics.median(times):.2f} s; "
        f"p99 {inside.p99_ms:.2f} ms during it, {outside.p99_ms:.2f} ms beside it, {statistics.median(ratios):.2f} times, "
        f"{busy:.2f} ms while another process computes"
    )
    return {
        "policies": policies,
        "changed": CHANGED,
        "rate": RATE,
        "seconds": [round(one, 3) for one in times],
        "median_seconds": round(statistics.median(times), 3),
        "p99_ms_during": round(inside.p99_ms, 3),
        "p99_ms_beside": round(outside.p99_ms, 3),
        "p99_ratios": [round(one, 2) for one in ratios],
        "p99_ratio": round(statistics.median(ratios), 2),
        "p99_ms_busy": round(busy, 3),
        "p99_to_busy": round(inside.p99_ms / busy, 2),
        "requests_during": inside.count,
    }


def around(
    within: Sequence[tuple[float, float]], sent: Sequence[Sample], first: float
) -> list[tuple[list[Sample], list[Sample]]]:
    """Parts requests into those within each reload, and those between it and its neighbours, before and after.

    Args:
        within: when each reload began and ended, in seconds since the epoch, in order.
        sent: the requests.
        first: what started earlier does not count.

    Returns:
        Both, for each reload that has some of both, and ended before the last request.
    """
    last = max((one.at for one in sent), default=first)
    pairs = []
    for turn, (start, end) in enumerate(within):
        after = within[turn - 1][1] + _APART_SECONDS if turn else first
        until = (
            within[turn + 1][0] - _APART_SECONDS if turn + 1 < len(within) else end + _PAUSE_SECONDS
        )
        mine = [one for one in sent if start <= one.at <= end]
        beside = [
            one
            for one in sent
            if after <= one.at <= start - _APART_SECONDS or end + _APART_SECONDS <= one.at <= until
        ]
        if mine and beside and end <= last:
            pairs.append((mine, beside))
    return pairs


def _beside_busy(bench: Bench, policies: int) -> float:
    """Measures the same load while another process does nothing but compute.

    Returns:
        The p99 meanwhile, in milliseconds.

    Raises:
        LoadError: a request failed, or none came.
    """
    target, surface = bench.servers[policies], "check"
    load = Load(0, RATE, 2 * _PAUSE_SECONDS + _BUSY_SECONDS)
    with ThreadPoolExecutor(1) as pool:
        data = bench.data[policies, surface]
        sending = pool.submit(bench.ghz.samples, surface, data, target.ports["python"], load)
        time.sleep(_PAUSE_SECONDS)
        start = time.time()
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
            try:
                time.sleep(_BUSY_SECONDS)
            finally:
                busy.kill()
        end = time.time()
        sent = sending.result()
    meanwhile = [one for one in sent if start <= one.at <= end]
    failed = summary(sent).errors
    if failed or not meanwhile:
        raise LoadError(f"requests failed, or none came beside a busy process: {failed}")
    return summary(meanwhile).p99_ms


def _change(folder: Path, turn: int) -> None:
    """Changes one policy in each of ten files: the amount that it forbids."""
    for file in islice(sorted((folder / "policies").glob("api*.cedar")), CHANGED):
        text = file.read_text()
        start = text.index("context.input.amount > 9000")
        end = text.index("}", start)
        file.write_text(f"{text[:start]}context.input.amount > 9000{turn + 1:02} {text[end:]}")


def _reload(socket: Path) -> tuple[float, float]:
    """Asks for a reload and waits for it.

    Returns:
        When it began and ended, in seconds since the epoch.

    Raises:
        LoadError: it was refused.
    """
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        grpc.channel_ready_future(channel).result(timeout=5)
        start = time.time()
        answer = admin_pb2_grpc.AdminStub(channel).Reload(admin_pb2.ReloadRequest(), timeout=60)
        end = time.time()
    if not answer.reloaded:
        raise LoadError(f"the reload was refused: {'; '.join(answer.diagnostics)[:500]}")
    return start, end
