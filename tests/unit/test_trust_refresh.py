"""Keeping keys fresh: when sources are asked, what is kept and what is dropped. The clock is ours."""

from __future__ import annotations

import io
import json
import threading
from typing import TYPE_CHECKING

import pytest

from authz.config import Config, Log, Refresh, load
from authz.errors import TrustError
from authz.model import Diagnostic
from authz.telemetry import make_logger
from authz.trust.fetch import Document, Fetcher, FetchError, FetchRequest
from authz.trust.refresh import Refresher, RefreshOutcome
from authz.trust.remote import CurrentDocument, RemoteSource, remote_sources
from authz.trust.sources import SourceKey, withdrawn
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

CORP = SourceKey("issuer", "corp")
MESH = SourceKey("domain", "a.example")
BOUNDS = Refresh(min=60.0, max=3600.0, max_staleness=86_400.0)


class Holder:
    """Keeps what it is given; refuses what says so."""

    def __init__(self) -> None:
        self.documents: dict[SourceKey, str] = {}
        self.dropped: list[SourceKey] = []
        self.refused_drops: set[SourceKey] = set()

    def current(self, key: SourceKey) -> str | None:
        """What it keeps."""
        return self.documents.get(key)

    def renew(self, key: SourceKey, document: str) -> bool:
        """Keep it."""
        if document == "bad":
            raise TrustError((Diagnostic("no JWK set"),))
        if document == "panic":
            raise SystemError(document)
        changed = self.documents.get(key) != document
        self.documents[key] = document
        return changed

    def drop(self, key: SourceKey) -> None:
        """Forget it."""
        if key in self.refused_drops:
            raise SystemError("panic")
        self.dropped.append(key)
        del self.documents[key]


class Stage:
    """A refresher whose clock and sources are the test's."""

    def __init__(self, *keys: SourceKey, refresh: Refresh = BOUNDS) -> None:
        self.now = 1000.0
        self.documents: dict[SourceKey, Document | Exception] = {}
        self.asked: list[SourceKey] = []
        self.unknown: list[SourceKey] = []
        self.completed = 0
        self.log = io.StringIO()
        self.holder = Holder()
        self.bounds = refresh
        self.refresher = Refresher(
            [self.source(key) for key in keys],
            self.holder,
            make_logger(Log(), self.log),
            unknown=self._take_unknown,
            complete=self._complete,
            clock=lambda: self.now,
            spread=lambda _least, most: most,
        )

    def source(self, key: SourceKey) -> RemoteSource:
        """Make a source."""
        return RemoteSource(key, f"https://{key.name}/keys", self.bounds, self._fetch(key))

    def _fetch(self, key: SourceKey) -> Callable[[CurrentDocument], Document]:
        def fetch(_current: CurrentDocument) -> Document:
            self.asked.append(key)
            document = self.documents.get(key, FetchError("nobody there"))
            if isinstance(document, Exception):
                raise document
            return document

        return fetch

    def _take_unknown(self) -> Iterable[SourceKey]:
        taken, self.unknown = self.unknown, []
        return taken

    def _complete(self) -> None:
        self.completed += 1

    def run(self) -> list[RefreshOutcome]:
        """Do what is due."""
        return [self.refresher.refresh(key) for key in self.refresher.due()]

    def until_asked(self, most: float = 1e6) -> float:
        """Let time pass until something is fetched; returns how long it took."""
        began, count = self.now, len(self.asked)
        while len(self.asked) == count:
            assert self.now - began <= most
            self.now += 0.5
            self.run()
        return self.now - began


def test_sources_come_and_go() -> None:
    """One that stays goes on as it was, a new one is fetched at once, and one that is gone never."""
    stage = Stage(CORP, MESH)
    for key in (CORP, MESH):
        stage.documents[key] = Document("one")
    stage.run()
    other = SourceKey("recipient_list", "customers", "another")
    stage.documents[other] = Document("two")
    stays, _ = (stage.source(key) for key in (CORP, MESH))
    stage.refresher.replace([stays, stage.source(other)])
    assert stage.run() == [RefreshOutcome.UPDATED]
    assert stage.asked == [CORP, MESH, other]
    assert [one.key for one in stage.refresher.statuses()] == [CORP, other]
    assert stage.until_asked() == 300
    assert stage.refresher.refresh(MESH) is RefreshOutcome.FAILED
    assert stage.asked.count(MESH) == 1


def test_every_source_is_fetched_at_once_and_then_in_its_time() -> None:
    """Whatever it says, within the bounds; where it says nothing, after five minutes."""
    stage = Stage(CORP, MESH)
    for key in (CORP, MESH):
        stage.documents[key] = Document("one")
    assert stage.run() == [RefreshOutcome.UPDATED, RefreshOutcome.UPDATED]
    assert stage.run() == []
    stands = {one.key: one for one in stage.refresher.statuses()}
    assert stands[CORP].counts[RefreshOutcome.UPDATED] == 1
    stage = Stage(CORP)
    for fresh_for, expected in [(None, 300), (0.0, 60), (600.0, 600), (1e9, 3600)]:
        stage.documents[CORP] = Document("one", fresh_for)
        stage.until_asked()
        assert stage.until_asked() == expected, fresh_for
    (only,) = stage.refresher.statuses()
    assert only.counts[RefreshOutcome.UPDATED] == 1
    assert only.counts[RefreshOutcome.UNCHANGED] == 7


def test_a_source_that_fails_is_asked_again_after_growing_pauses() -> None:
    """Up to a minute; then as before."""
    stage = Stage(CORP)
    assert stage.run() == [RefreshOutcome.FAILED]
    pauses = [stage.until_asked() for _ in range(9)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    stage.documents[CORP] = Document("one")
    assert stage.until_asked() == 60
    assert stage.until_asked() == 300
    stage.documents[CORP] = FetchError("again")
    stage.until_asked()
    assert stage.until_asked() == 1, "the pauses begin anew"


def test_pauses_are_spread() -> None:
    """So that the nodes of a fleet, or the sources of a node, do not ask all at once."""
    bounds: list[tuple[float, float]] = []
    stage = Stage(CORP)

    def spread(least: float, most: float) -> float:
        bounds.append((least, most))
        return most

    stage.refresher._spread = spread
    stage.run()
    stage.documents[CORP] = Document("one")
    stage.until_asked()
    assert bounds == [(0.5, 1.0), (0.9, 1.0)]


def test_what_cannot_be_fetched_serves_until_it_is_too_old() -> None:
    """And then no more; the end of the outage brings it back."""
    stage = Stage(CORP)
    stage.documents[CORP] = Document("one")
    stage.run()
    began = stage.now
    stage.documents[CORP] = FetchError("nobody there")
    while stage.now - began < 86_400:
        assert stage.holder.documents == {CORP: "one"}
        stage.now += 30
        stage.run()
    stage.now += 1
    stage.run()
    assert stage.holder.dropped == [CORP]
    (stands,) = stage.refresher.statuses()
    assert (stands.stale, stands.error) == (True, "nobody there")
    assert "keys are too old and were dropped" in stage.log.getvalue()
    stage.now += 86_400
    stage.run()
    assert stage.holder.dropped == [CORP], "once"

    stage.documents[CORP] = Document("one")
    stage.until_asked()

    assert stage.holder.documents == {CORP: "one"}
    (stands,) = stage.refresher.statuses()
    assert (stands.stale, stands.error, stands.age) == (False, "", 0.0)


def test_keys_that_are_known_to_be_current_are_never_dropped() -> None:
    """Unchanged is as good as new."""
    stage = Stage(CORP)
    stage.documents[CORP] = Document("one")
    for _ in range(2000):
        stage.now += 300
        stage.run()
    assert stage.holder.dropped == []


def test_a_machine_that_slept_drops_before_it_asks() -> None:
    """The clock goes on while it sleeps."""
    stage = Stage(CORP)
    stage.documents[CORP] = Document("one")
    stage.run()
    stage.now += 86_401

    due = stage.refresher.due()

    assert due == [CORP]
    assert stage.holder.dropped == [CORP]
    assert stage.refresher.refresh(CORP) is RefreshOutcome.UPDATED


def test_a_drop_that_fails_is_tried_again_and_holds_up_no_fetch() -> None:
    """A source that was planned in the same round is still fetched. The failure is logged once."""
    stage = Stage(CORP, MESH)
    for key in (CORP, MESH):
        stage.documents[key] = Document("one")
    stage.run()
    stage.holder.refused_drops = {CORP}
    stage.now += 86_401

    assert stage.refresher.due() == [CORP, MESH]
    assert stage.holder.dropped == [MESH]
    assert not next(stands for stands in stage.refresher.statuses() if stands.key == CORP).stale
    stage.documents[CORP] = FetchError("gone")
    for key in (CORP, MESH):
        stage.refresher.refresh(key)
    stage.refresher.due()
    assert stage.log.getvalue().count("keys are too old and could not be dropped") == 1

    stage.holder.refused_drops = set()
    stage.refresher.due()
    assert stage.holder.dropped == [MESH, CORP]
    assert next(stands for stands in stage.refresher.statuses() if stands.key == CORP).stale


def test_a_thread_that_fetches_outlives_an_error_of_its_listener() -> None:
    """Readiness is told by a function that could fail; later sources need the thread."""
    stage = Stage(CORP)
    stage.documents[CORP] = Document("one")
    told = []

    def complete() -> None:
        told.append(1)
        raise SystemError("panic")

    refresher = Refresher(
        [stage.source(CORP)],
        stage.holder,
        make_logger(Log(), stage.log),
        complete=complete,
        threads=1,
    )
    refresher.start()
    try:
        eventually(lambda: told)
        added = stage.source(MESH)
        stage.documents[MESH] = Document("two")
        refresher.replace([stage.source(CORP), added])
        eventually(lambda: stage.holder.documents.get(MESH) == "two")
        assert "a refresh failed inside the server" in stage.log.getvalue()
    finally:
        refresher.close()


@pytest.mark.parametrize(("document", "outcome"), [("bad", "refused"), ("panic", "failed")])
def test_a_bad_document_leaves_the_last_good_one(document: str, outcome: str) -> None:
    """It does not make the good one younger either."""
    stage = Stage(CORP)
    stage.documents[CORP] = Document("one")
    stage.run()
    stage.documents[CORP] = Document(document)
    stage.until_asked()

    assert stage.holder.documents == {CORP: "one"}
    (stands,) = stage.refresher.statuses()
    assert stands.counts[RefreshOutcome(outcome)] == 1
    assert stands.age == 300
    assert stands.error
    stage.now += 86_400
    stage.run()
    assert stage.holder.dropped == [CORP]


def test_complete_is_said_once_when_every_source_came() -> None:
    """Not by those that came twice."""
    stage = Stage(CORP, MESH)
    stage.documents[CORP] = Document("one")
    stage.run()
    stage.until_asked()
    assert stage.completed == 0
    stage.documents[MESH] = Document("bad")
    stage.now += 100
    stage.run()
    assert stage.completed == 0, "a document that is refused is none"
    stage.documents[MESH] = Document("one")
    stage.now += 100
    stage.run()
    assert stage.completed == 1
    stage.now += 1000
    stage.run()
    assert stage.completed == 1


def test_without_sources_it_is_complete_from_the_start() -> None:
    """And no thread runs."""
    stage = Stage()
    before = threading.active_count()
    stage.refresher.start()
    assert stage.completed == 1
    assert threading.active_count() == before
    stage.refresher.close()


def test_an_unknown_key_asks_once_a_minute() -> None:
    """However many come."""
    stage = Stage(CORP, MESH)
    for key in (CORP, MESH):
        stage.documents[key] = Document("one", 3600.0)
    stage.run()
    stage.asked.clear()
    for _ in range(2 * 600):
        stage.now += 0.5
        stage.unknown = [CORP] * 5
        stage.run()
    assert stage.asked == [CORP] * 10, "ten minutes, and only the source that was asked for"


def test_an_unknown_key_does_not_make_a_failing_source_be_asked_more_often() -> None:
    """Once a minute stays once a minute, though what was asked for in between failed."""
    stage = Stage(CORP)
    stage.documents[CORP] = Document("one", 3600.0)
    stage.run()
    stage.asked.clear()
    stage.documents[CORP] = FetchError("nobody there")
    for _ in range(2 * 600):
        stage.now += 0.5
        stage.unknown = [CORP]
        stage.run()
    assert stage.asked == [CORP] * 10


def test_an_unknown_key_after_a_quiet_time_is_looked_for_at_once() -> None:
    """The first token after a rotation does not wait for the interval."""
    stage = Stage(CORP)
    stage.documents[CORP] = Document("one", 3600.0)
    stage.run()
    stage.now += 100
    stage.documents[CORP] = Document("two", 3600.0)
    stage.unknown = [CORP]
    assert stage.run() == [RefreshOutcome.UPDATED]
    assert stage.holder.documents == {CORP: "two"}


def test_an_unknown_key_of_nobody_is_ignored() -> None:
    """For example of a source that is a file."""
    stage = Stage(CORP)
    stage.documents[CORP] = Document("one", 3600.0)
    stage.run()
    stage.unknown = [MESH]
    stage.now += 1
    assert stage.run() == []


def test_what_is_on_its_way_is_not_asked_for_again() -> None:
    """A slow source does not fill the queue."""
    stage = Stage(CORP)
    assert stage.refresher.due() == [CORP]
    stage.unknown = [CORP]
    stage.now += 1000
    assert stage.refresher.due() == []


def test_a_fetch_that_ends_after_the_end_changes_nothing() -> None:
    """The engine may be gone."""
    stage = Stage(CORP)
    stage.documents[CORP] = Document("one")
    (key,) = stage.refresher.due()
    stage.refresher.close()
    stage.refresher.refresh(key)
    assert stage.holder.documents == {}


def test_its_threads_fetch_and_end() -> None:
    """With the real clock; a source that hangs holds up no other."""
    holder, hangs, gone = Holder(), threading.Event(), threading.Event()

    def hang(_current: CurrentDocument) -> Document:
        hangs.set()
        gone.wait(10)
        return Document("late")

    refresher = Refresher(
        [
            RemoteSource(MESH, "", BOUNDS, hang),
            RemoteSource(CORP, "", BOUNDS, lambda _: Document("one")),
        ],
        holder,
        make_logger(Log(), io.StringIO()),
    )
    refresher.start()
    eventually(lambda: holder.documents == {CORP: "one"} and hangs.is_set())
    gone.set()
    eventually(lambda: holder.documents.get(MESH) == "late")
    refresher.close()
    refresher.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("authz-refresh")]


def test_what_stands_in_the_place_of_old_keys_keeps_the_sequence() -> None:
    """Else an older bundle could follow."""
    assert json.loads(withdrawn('{"keys":[{}],"spiffe_sequence":7}')) == {
        "keys": [],
        "spiffe_sequence": 7,
    }
    for text in ('{"keys":[{}]}', "", "[]", '{"spiffe_sequence":"7"}'):
        assert json.loads(withdrawn(text)) == {"keys": []}


# --- what is fetched


CONFIG = """\
bundle: {{path: bundle}}
trust: {trust}
identity: {{audiences: [authz]}}
listeners: {{main: {{address: "127.0.0.1:9191", insecure_dev: true}}}}
"""
ISSUER = "https://idp.example/tenant"
KEYS = '{"keys":[]}'


class Web:
    """Answers from a dictionary, and remembers what was asked."""

    def __init__(self, pages: dict[str, str]) -> None:
        self.pages = pages
        self.asked: list[FetchRequest] = []

    def get(self, request: FetchRequest) -> Document:
        """Answer."""
        self.asked.append(request)
        if request.url not in self.pages:
            raise FetchError("it answers 404")
        return Document(self.pages[request.url], 120.0)


def configured(folder: Path, trust: str) -> Config:
    """Loads a configuration with this `trust`."""
    (folder / "config.yaml").write_text(CONFIG.format(trust=trust))
    return load(folder / "config.yaml", {}, working_folder=folder)


def issuer(jwks: str) -> str:
    """A `trust` with one issuer."""
    said = f", jwks: {jwks}" if jwks else ""
    return (
        "{issuers: {corp: {issuer: '"
        + ISSUER
        + "', audience: [a], algorithms: [ES256]"
        + said
        + "}}}"
    )


@pytest.mark.parametrize("jwks", ["", "{}", "{discovery: true}"])
def test_an_issuer_is_discovered(tmp_path: Path, jwks: str) -> None:
    """Where nothing else is said."""
    web = Web(
        {
            f"{ISSUER}/.well-known/openid-configuration": json.dumps(
                {"issuer": ISSUER, "jwks_uri": "https://keys.example/k"}
            ),
            "https://keys.example/k": KEYS,
        }
    )
    (source,) = remote_sources(configured(tmp_path, issuer(jwks)), web.get)

    document = source.fetch(lambda _: None)

    assert document == Document(KEYS, 120.0)
    assert source.key == CORP
    assert source.place == f"{ISSUER}/.well-known/openid-configuration"


@pytest.mark.parametrize(
    ("described", "why"),
    [
        ({"issuer": ISSUER + "/", "jwks_uri": "https://keys.example/k"}, "of another issuer"),
        (
            {"issuer": "https://evil.example", "jwks_uri": "https://keys.example/k"},
            "another issuer",
        ),
        ({"jwks_uri": "https://keys.example/k"}, "another issuer: none"),
        ({"issuer": ISSUER}, "has no `jwks_uri`"),
        ({"issuer": ISSUER, "jwks_uri": 7}, "has no `jwks_uri`"),
        ([], "not a JSON object"),
        (
            '{"issuer": "x", "issuer": "' + ISSUER + '", "jwks_uri": "https://keys.example/k"}',
            "twice",
        ),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_description_that_is_not_the_issuers_is_refused(
    tmp_path: Path, described: object, why: str
) -> None:
    """Its keys would be somebody else's."""
    text = described if isinstance(described, str) else json.dumps(described)
    web = Web({f"{ISSUER}/.well-known/openid-configuration": text, "https://keys.example/k": KEYS})
    (source,) = remote_sources(configured(tmp_path, issuer("")), web.get)

    with pytest.raises(FetchError, match=why):
        source.fetch(lambda _: None)


def test_what_is_permitted_is_permitted_for_the_configured_host(tmp_path: Path) -> None:
    """A description must not lead the node to its neighbours."""
    page = f"{ISSUER}/.well-known/openid-configuration"
    for keys, private in [("https://idp.example/k", True), ("https://vault.internal/k", False)]:
        web = Web({page: json.dumps({"issuer": ISSUER, "jwks_uri": keys}), keys: KEYS})
        trust = issuer("{allow_private: true, allow_networks: [10.9.0.0/16]}")
        (source,) = remote_sources(configured(tmp_path, trust), web.get)
        source.fetch(lambda _: None)
        assert [request.reach.private for request in web.asked] == [True, private]
        assert [len(request.reach.networks) for request in web.asked] == [1, 1]


def test_where_a_description_leads_is_checked_as_every_url(tmp_path: Path) -> None:
    """By the real fetcher, before anything is asked."""

    def described(request: FetchRequest) -> Document:
        if request.url.endswith("openid-configuration"):
            return Document(json.dumps({"issuer": ISSUER, "jwks_uri": uri}))
        return Fetcher().get(request)

    (source,) = remote_sources(configured(tmp_path, issuer("")), described)
    uri = ""
    for uri in ("http://idp.example/k", "file:///etc/passwd", "https://a@b/", "https://[", ""):  # noqa: B007 - read above
        with pytest.raises(FetchError, match="its URL "):
            source.fetch(lambda _: None)


def test_keys_are_fetched_from_a_url(tmp_path: Path) -> None:
    """With the entry's own bounds, and the rest from all."""
    trust = issuer("{url: 'https://keys.example/k?tenant=1', refresh: {min: 5s, timeout: 2s}}")
    web = Web({"https://keys.example/k?tenant=1": KEYS})
    (source,) = remote_sources(configured(tmp_path, trust), web.get)

    assert source.fetch(lambda _: None) == Document(KEYS, 120.0)
    assert (source.refresh.min, source.refresh.max, source.refresh.timeout) == (5, 3600, 2)
    assert source.place == "https://keys.example/k"
    assert [request.timeout for request in web.asked] == [2.0]


@pytest.mark.parametrize(
    ("hint", "fresh_for"),
    [
        (30, 30.0),
        (0, 0.0),
        (1 << 62, float(1 << 31)),
        (None, 120.0),
        (-1, 120.0),
        (True, 120.0),
        ("9", 120.0),
    ],
)
def test_a_bundle_says_itself_how_often_it_wants_to_be_asked(
    tmp_path: Path, hint: object, fresh_for: float
) -> None:
    """Else its server."""
    url = "https://a.example/bundle"
    bundle = {"keys": [], **({"spiffe_refresh_hint": hint} if hint is not None else {})}
    web = Web({url: json.dumps(bundle)})
    trust = "{domains: {a.example: {bundle: {url: '" + url + "'}}}}"
    (source,) = remote_sources(configured(tmp_path, trust), web.get)

    assert source.fetch(lambda _: None).fresh_for == fresh_for
