"""Every load on every lane, surface and bundle, and the pairs that the ratios are made of."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.load import counters
from bench.load.bundle import Bundle
from bench.load.ghz import Ghz, Load, LoadError, Measured, summary
from bench.load.requests import METHODS
from bench.load.server import LANES, Target, scrape

BUNDLES = (100, 1_000, 10_000)
# The bundle of which the ratios to the floor are taken.
MIDDLE = 1_000
DURATION = "authz_decision_duration_seconds"
# ghz opens its connections when a load begins.
_WARM_UP = 0.1
# How the server refuses while the disk or the machine stands still for long, which is no figure.
_FULL = frozenset({"deny AUDIT_FULL", "deny OVERLOADED"})
_MOST_RETAKEN = 5
# Closed loops whose median says what a lane can take: no more, since a machine that others use as well slows down and recovers.
_RECENT = 5


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured.

    Attributes:
        seconds: length of a load.
        pair_seconds: length of a load of a pair.
        bundles: sizes of the bundles.
        concurrencies: of the closed loops; the pairs take the last one.
        rates: of the open loops, a second; half of the saturation comes on top.
        pairs: interleaved pairs of each ratio.
    """

    seconds: float
    pair_seconds: float
    bundles: tuple[int, ...]
    concurrencies: tuple[int, ...]
    rates: tuple[int, ...]
    pairs: int


WHOLE = Extent(2.0, 3.0, BUNDLES, (1, 16, 64), (1_000,), 25)
QUICK = Extent(1.0, 1.0, (100, 10_000, MIDDLE), (64,), (1_000,), 1)


@dataclass(frozen=True, slots=True)
class Window:
    """One load on one target.

    Attributes:
        seen: what ghz saw.
        cpu_us: processor time that the target used for a request, in microseconds.
        rss_mb: its resident memory at the end.
        decision_p99_ms: of the decisions within it, as the target counted them; None for a floor.
    """

    seen: Measured
    cpu_us: float
    rss_mb: float
    decision_p99_ms: float | None


class _FullError(LoadError):
    """The server had no room for some of the requests, and answered all others rightly."""


@dataclass(frozen=True, slots=True)
class Bench:
    """Everything that runs: a server for each bundle, and the floors.

    Attributes:
        ghz: the load generator.
        bundles: by size.
        data: request file of each bundle size and surface.
        servers: by bundle size.
        floors: by lane.
        say: told of each step.
        retaken: loads that the server refused in part, having no room, and that were sent again.
    """

    ghz: Ghz
    bundles: dict[int, Bundle]
    data: dict[tuple[int, str], Path]
    servers: dict[int, Target]
    floors: dict[str, Target]
    say: Callable[[str], None]
    retaken: list[str] = field(default_factory=list)

    def window(
        self, lane: str, surface: str, policies: int, load: Load, *, floor: bool = False
    ) -> Window:
        """Measures one load, and checks that every answer was the right one; again, where the server had no room.

        Args:
            lane: `python` or `fast`.
            surface: `check` or `ext_authz`.
            policies: size of the bundle whose requests are sent.
            load: how they are sent.
            floor: to the lane's floor instead of the server.

        Raises:
            LoadError: a request failed, was lost or was not permitted, or the server had no room too often.
            ProcessError: the target ended.
        """
        while True:
            try:
                return self._window(lane, surface, policies, load, floor=floor)
            except _FullError as error:
                self.retaken.append(str(error))
                if len(self.retaken) > _MOST_RETAKEN:
                    raise
                self.say(f"again: {error}")

    def _window(self, lane: str, surface: str, policies: int, load: Load, *, floor: bool) -> Window:
        target = self.floors[lane] if floor else self.servers[policies]
        counted = scrape(target.metrics) if target.metrics else {}
        before = target.process.usage()
        seen = summary(
            self.ghz.samples(surface, self.data[policies, surface], target.ports[lane], load),
            warm_up=_WARM_UP,
        )
        after = target.process.usage()
        where = f"{lane} {surface} {policies} {load}"
        if seen.errors:
            raise LoadError(f"{where}: of {seen.count} requests failed: {seen.errors}")
        p99_ms = None
        if target.metrics:
            now = scrape(target.metrics)
            made = counters.decisions(counted, now)
            if made != {"permit PERMITTED": seen.count}:
                what = f"{seen.count} requests, all to be permitted; the server counted {made}"
                refused = made.keys() - {"permit PERMITTED"}
                is_full = refused and refused <= _FULL and sum(made.values()) == seen.count
                raise (_FullError if is_full else LoadError)(f"{where}: {what}")
            p99_ms = counters.quantile(counted, now, DURATION, 0.99) * 1e3
        cpu_us = (after.cpu_seconds - before.cpu_seconds) / seen.count * 1e6
        self.say(
            f"{'floor ' if floor else ''}{lane:6} {surface:9} {policies:6} policies "
            f"c={load.concurrency:2} rate={load.rate:5}: {seen.rps:6.0f}/s p50 {seen.p50_ms:6.2f} "
            f"p99 {seen.p99_ms:6.2f} ms, cpu {cpu_us:5.1f} us"
            + ("" if p99_ms is None else f", decision p99 {p99_ms:.3f} ms")
        )
        return Window(seen, cpu_us, after.rss_mb, p99_ms)

    def warm(self) -> None:
        """Sends a short load to every target and surface: caches fill, connections open."""
        for lane in LANES:
            for surface in METHODS:
                for policies in self.servers:
                    self.window(lane, surface, policies, Load(16, 0, 0.7))
                self.window(lane, surface, next(iter(self.servers)), Load(16, 0, 0.5), floor=True)

    def rows(self, extent: Extent) -> dict[str, list[dict[str, object]]]:
        """Measures the whole matrix.

        Returns:
            `rows` of the server, and `floors`; where a floor was not measured at just that rate, a row holds the
            floor of the middle bundle's.
        """
        rows: list[dict[str, object]] = []
        floors: list[dict[str, object]] = []
        # The middle bundle first: its floor is measured beside each of its loads.
        sizes = sorted(extent.bundles, key=lambda size: size != MIDDLE)
        for lane in LANES:
            for surface in METHODS:
                floor_cpu: dict[tuple[int, str], float] = {}
                for policies in sizes:
                    saturation = 0.0
                    loads: list[tuple[str, Load]] = [
                        ("closed", Load(one, 0, extent.seconds)) for one in extent.concurrencies
                    ]
                    loads += [(str(rate), Load(0, rate, extent.seconds)) for rate in extent.rates]
                    loads.append(("half", Load(0, 1, extent.seconds)))
                    for kind, load in loads:
                        shaped = _half(saturation, extent.seconds) if kind == "half" else load
                        window = self.window(lane, surface, policies, shaped)
                        if kind == "closed":
                            saturation = max(saturation, window.seen.rps)
                        key = (load.concurrency, kind)
                        if policies == sizes[0]:
                            beneath = self.window(lane, surface, policies, shaped, floor=True)
                            floor_cpu[key] = beneath.cpu_us
                            floors.append(_row(lane, surface, policies, shaped, beneath))
                        row = _row(lane, surface, policies, shaped, window)
                        row["floor_cpu_us"] = round(floor_cpu[key], 2)
                        row["decision_p99_ms"] = round(window.decision_p99_ms or 0.0, 4)
                        row["half"] = kind == "half"
                        rows.append(row)
        return {"rows": rows, "floors": floors}

    def pairs(self, extent: Extent) -> list[dict[str, object]]:
        """Measures the ratios: each the median over interleaved pairs, so that a drift of the machine hits both.

        The pairs of all lanes and surfaces take turns as well, so that none is made of some minutes of the run alone.

        Args:
            extent: how many pairs.

        Returns:
            For each ratio: what it is of, and the pairs.
        """
        cases = [_Case(lane, surface) for lane in LANES for surface in METHODS]
        full = Load(extent.concurrencies[-1], 0, extent.pair_seconds)
        small, large = min(extent.bundles), max(extent.bundles)
        for _ in range(extent.pairs):
            for case in cases:
                one, beneath = self._pair(case, full)
                case.rates.append(one.seen.rps)
                case.pairs["cpu_to_floor"].append((one.cpu_us, beneath.cpu_us))
                few = self.window(case.lane, case.surface, small, full)
                many = self.window(case.lane, case.surface, large, full)
                case.pairs["large_to_small"].append((many.cpu_us, few.cpu_us))
                one, beneath = self._pair(case, _half(case.saturation(), extent.pair_seconds))
                case.pairs["p99_to_floor"].append((one.seen.p99_ms, beneath.seen.p99_ms))
        return [
            {
                "ratio": name,
                "lane": case.lane,
                "surface": case.surface,
                "median": round(statistics.median(_ratios(pairs)), 3),
                "pairs": [[round(over, 3), round(under, 3)] for over, under in pairs],
            }
            for case in cases
            for name, pairs in case.pairs.items()
        ]

    def _pair(self, case: "_Case", load: Load) -> tuple[Window, Window]:
        return (
            self.window(case.lane, case.surface, MIDDLE, load),
            self.window(case.lane, case.surface, MIDDLE, load, floor=True),
        )


@dataclass(frozen=True, slots=True)
class _Case:
    """What the ratios of one lane and surface are made of."""

    lane: str
    surface: str
    rates: list[float] = field(default_factory=list)
    pairs: dict[str, list[tuple[float, float]]] = field(
        default_factory=lambda: {"cpu_to_floor": [], "large_to_small": [], "p99_to_floor": []}
    )

    def saturation(self) -> float:
        """Requests a second that this lane takes at this time of the run."""
        return statistics.median(self.rates[-_RECENT:])


def _half(saturation: float, seconds: float) -> Load:
    return Load(0, max(1, int(saturation / 2)), seconds)


def _ratios(pairs: Sequence[tuple[float, float]]) -> list[float]:
    return [over / under if under else float("inf") for over, under in pairs]


def _row(lane: str, surface: str, policies: int, load: Load, window: Window) -> dict[str, object]:
    return {
        "lane": lane,
        "surface": surface,
        "policies": policies,
        "concurrency": load.concurrency,
        "rate": load.rate,
        "rps": round(window.seen.rps, 1),
        "p50_ms": round(window.seen.p50_ms, 3),
        "p99_ms": round(window.seen.p99_ms, 3),
        "p999_ms": round(window.seen.p999_ms, 3),
        "server_cpu_us": round(window.cpu_us, 2),
        "rss_mb": round(window.rss_mb, 1),
    }
