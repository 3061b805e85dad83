"""The page where people answer approvals: login, list, card, answer, passkeys, and what it refuses."""

import asyncio
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest
import structlog
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.testclient import TestClient
from webauthn.helpers import base64url_to_bytes

from authz.approvals import ApprovalHub, Invitations
from authz.errors import ApiError, GrpcCode
from authz.server.http.approvals_page import sessions
from authz.server.http.approvals_page.live import LiveChanges
from authz.server.http.approvals_page.openid import OpenIdClient, OpenIdSettings
from authz.server.http.approvals_page.page import ApprovalsPage
from authz.server.http.approvals_page.parts import PageParts, PageSettings
from authz.server.http.approvals_page.passkeys import Passkeys, PasskeySettings
from authz.server.http.approvals_page.rendering import Renderer
from authz.server.http.approvals_page.requests import Cookies, own_path
from authz.server.http.approvals_page.sessions import Login, LoginMethod, Sessions
from authz.server.http.server import WebServer, WebSettings
from authz.trust import Document, FetchRequest
from authz_client.v1 import approvals_pb2
from tests.support.approving import APPROVED, PENDING, REJECTED, Approvals, LoginIssuer, approval
from tests.support.authenticator import Authenticator
from tests.support.minting import Key

URL = "https://authz.example"
OWN = {"origin": URL, "sec-fetch-site": "same-origin"}
JSON = {**OWN, "accept": "application/json"}


class Forms(HTMLParser):
    """Fields of the last form with a digest, and the texts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag, and the value of a field."""
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag == "input" and found.get("name"):
            self.fields[str(found["name"])] = found.get("value") or ""


@dataclass
class Browser:
    """A browser at the page of a node, whose clock the test moves."""

    store: Approvals
    issuer: LoginIssuer
    parts: PageParts
    client: TestClient
    failures: list[BaseException]
    offset: float = 0.0

    def log_in(self, to: str = "/", *, anew: bool = False) -> httpx2.Response:
        """Logs Alice in at the issuer."""
        query = urlencode({"to": to, **({"anew": "1"} if anew else {})})
        begun = self.client.get(f"/login/start?{query}", follow_redirects=False)
        assert begun.status_code == 303, begun.text
        answer = self.issuer.authorize(begun.headers["location"])
        return self.client.get("/login/callback", params=answer, follow_redirects=False)

    def form(self, path: str) -> dict[str, str]:
        """Loads a page, and returns the fields of its forms."""
        page = self.client.get(path)
        assert page.status_code == 200, page.text
        return Forms(page.text).fields

    def post(
        self, path: str, fields: dict[str, str], headers: dict[str, str] | None = None
    ) -> httpx2.Response:
        """Sends a form."""
        sent = OWN if headers is None else headers
        return self.client.post(path, data=fields, headers=sent, follow_redirects=False)

    def answer(self, outcome: str = "approve", **fields: str) -> httpx2.Response:
        """Answers the approval `a1-0` as the page's form does."""
        form = self.form("/a/a1-0")
        return self.post("/a/a1-0", {**form, "outcome": outcome, **fields})

    def add_passkey(self, **how: Any) -> Authenticator:
        """Makes a passkey of the person who is logged in."""
        passkey = Authenticator()
        csrf = {"csrf": self.form("/passkeys")["csrf"]}
        options = self.post("/passkeys/options", csrf, JSON)
        assert options.status_code == 200, options.text
        credential = passkey.create(options.text, **how)
        fields = {**csrf, "credential": credential, "name": "Laptop"}
        added = self.post("/passkeys/add", fields, JSON)
        assert added.status_code == 200, added.text
        return passkey

    def sign(
        self,
        passkey: Authenticator,
        outcome: str = "approve",
        changes: dict[str, str] | None = None,
        **how: Any,
    ) -> httpx2.Response:
        """Answers the approval `a1-0` with a passkey; `changes` are made after it signed."""
        form = {**self.form("/a/a1-0"), "outcome": outcome, "reason": "wrong_recipient"}
        options = self.post("/a/a1-0/challenge", form, JSON)
        assert options.status_code == 200, options.text
        form["assertion"] = passkey.get(options.text, **how)
        return self.post("/a/a1-0", form | (changes or {}))


def build(
    *, has_login: bool = True, has_passkeys: bool = True, url: str = URL, base: str = ""
) -> Iterator[Browser]:
    """Makes a page over approvals in memory."""
    store, issuer, failures = Approvals(), LoginIssuer(), list[BaseException]()
    hub = ApprovalHub(store, failures.append)
    hub.start()
    opened = Sessions()
    browser: Browser

    def clock() -> float:
        return time.time() + browser.offset

    settings = OpenIdSettings(
        alias="corp",
        issuer=issuer.issuer,
        algorithms=("ES256",),
        claims=("groups",),
        client_id="authz-page",
        client_secret_file=None,
        scopes=("openid", "profile"),
        redirect_uri=f"{url}/login/callback",
        description=FetchRequest(f"{issuer.issuer}/.well-known/openid-configuration"),
    )
    relying_party = PasskeySettings("authz.example", "Authz", URL)
    parts = PageParts(
        settings=PageSettings(url, base),
        store=store,
        sessions=opened,
        live=LiveChanges(hub, opened, 4),
        renderer=Renderer(base),
        cookies=Cookies(is_secure=url.startswith("https")),
        invitations=Invitations(clock),
        openid=OpenIdClient(settings, issuer.get, issuer.jwks, clock) if has_login else None,
        passkeys=Passkeys(relying_party, store, frozenset({"corp"}), clock)
        if has_passkeys
        else None,
        counted=lambda _name, _status: None,
        failed=failures.append,
        log=structlog.testing.CapturingLogger(),
        clock=clock,
    )
    app: Any = ApprovalsPage(parts).application()
    with TestClient(app, base_url=URL) as client:
        browser = Browser(store, issuer, parts, client, failures)
        store.add(approval())
        yield browser
    hub.close()
    assert failures == []


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A page with login and passkeys."""
    yield from build()


# --- login


def test_login_leads_to_the_card_that_was_asked_for(browser: Browser) -> None:
    """Through the choice of a way, by code with PKCE, state and nonce."""
    asked = browser.client.get("/a/a1-0", follow_redirects=False)
    assert asked.headers["location"] == "/login?to=/a/a1-0"
    assert "/login/start?to=/a/a1-0" in browser.client.get("/login?to=/a/a1-0").text

    done = browser.log_in("/a/a1-0")

    assert done.headers["location"] == "/a/a1-0"
    assert browser.issuer.asked["code_challenge_method"] == "S256"
    assert browser.issuer.asked["max_age"] == "28800"
    cookie = done.headers.get_list("set-cookie")[0]
    assert cookie.startswith("__Host-authz-session=")
    for attribute in ("HttpOnly", "Secure", "Path=/", "SameSite=lax"):
        assert attribute in cookie
    assert "Alice Example" in browser.client.get("/").text


def test_the_only_way_of_login_begins_at_once() -> None:
    """Without passkeys a link leads to the issuer."""
    for browser in build(has_passkeys=False):
        begun = browser.client.get("/login?to=/a/a1-0", follow_redirects=False)
        assert begun.headers["location"].startswith("https://id.example/auth?")
        assert browser.client.get("/passkeys", follow_redirects=False).status_code == 404


REFUSED_TOKENS: dict[str, dict[str, Any]] = {
    "nonce": {"nonce": "another"},
    "no_nonce": {"nonce": None},
    "audience": {"aud": "another-client"},
    "authorized_party": {"aud": ["authz-page", "x"], "azp": "x"},
    "no_authorized_party": {"aud": ["authz-page", "x"]},
    "issuer": {"iss": "https://evil.example"},
    "expired": {"exp": int(time.time()) - 3600},
    "no_expiry": {"exp": None},
    "no_auth_time": {"auth_time": None},
    "auth_time_of_another_type": {"auth_time": True},
    "auth_time_in_the_future": {"auth_time": int(time.time()) + 3600},
    "old_login": {"auth_time": int(time.time()) - 9 * 3600},
    "no_sub": {"sub": None},
    "empty_sub": {"sub": ""},
}


@pytest.mark.parametrize("claims", REFUSED_TOKENS.values(), ids=REFUSED_TOKENS)
def test_an_id_token_that_breaks_a_rule_logs_nobody_in(
    browser: Browser, claims: dict[str, Any]
) -> None:
    """OpenID Connect Core §3.1.3.7."""
    browser.issuer.claims = claims
    refused = browser.log_in()
    assert refused.status_code == 403
    assert len(browser.parts.sessions) == 0


def test_an_id_token_of_another_key_or_algorithm_logs_nobody_in(browser: Browser) -> None:
    """Only the keys that Authz trusts for the issuer count, with its algorithms."""
    trusted = browser.issuer.jwks()
    browser.issuer.key = Key.make("k1")
    browser.parts.openid._keys = lambda: trusted  # type: ignore[union-attr]
    assert browser.log_in().status_code == 403
    browser.parts.openid._keys = lambda: None  # type: ignore[union-attr]
    assert browser.log_in().status_code == 403
    unusable = {"keys": [{**browser.issuer.key.jwk("sig"), "key_ops": ["sign"]}]}
    browser.parts.openid._keys = lambda: json.dumps(unusable)  # type: ignore[union-attr]
    assert browser.log_in().status_code == 403
    browser.issuer.key = Key.make("k1", "RS256")
    browser.parts.openid._keys = browser.issuer.jwks  # type: ignore[union-attr]
    assert browser.log_in().status_code == 403
    assert len(browser.parts.sessions) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "another"},
        {"iss": "https://evil.example"},
        {"error": "access_denied"},
        {"code": ""},
    ],
)
def test_an_answer_of_another_login_or_issuer_is_refused(
    browser: Browser, changes: dict[str, str]
) -> None:
    """State, and the issuer of the answer (RFC 9207)."""
    begun = browser.client.get("/login/start", follow_redirects=False)
    answer = browser.issuer.authorize(begun.headers["location"]) | changes
    assert browser.client.get("/login/callback", params=answer).status_code == 403
    assert len(browser.parts.sessions) == 0


def test_nobody_finishes_a_login_that_another_browser_began(browser: Browser) -> None:
    """The flow stays in the browser's cookie."""
    begun = browser.client.get("/login/start", follow_redirects=False)
    answer = browser.issuer.authorize(begun.headers["location"])
    browser.client.cookies.clear()
    refused = browser.client.get("/login/callback", params=answer)
    assert refused.status_code == 400
    assert len(browser.parts.sessions) == 0


@pytest.mark.parametrize(
    "description",
    [
        {"issuer": "https://evil.example"},
        {"code_challenge_methods_supported": ["plain"]},
        {"authorization_endpoint": "http://id.example/auth"},
        {"token_endpoint": None},
    ],
)
def test_an_issuer_that_describes_itself_otherwise_is_refused(
    browser: Browser, description: dict[str, Any]
) -> None:
    """Pinned to the issuer of the configuration, over https, with PKCE."""
    browser.issuer.description = description
    begun = browser.client.get("/login/start", follow_redirects=False)
    if begun.status_code == 303:
        answer = browser.issuer.authorize(begun.headers["location"])
        begun = browser.client.get("/login/callback", params=answer)
    assert begun.status_code == 403
    assert "corp" in begun.text


def test_a_login_before_the_call_does_not_answer_it(browser: Browser) -> None:
    """The card asks for another login, which the issuer must prove with `auth_time`."""
    browser.issuer.claims = {"auth_time": int(time.time()) - 600}
    browser.log_in()
    assert "/login/start?anew=1&amp;to=/a/a1-0" in browser.client.get("/a/a1-0").text

    ignored = browser.log_in("/a/a1-0", anew=True)
    assert ignored.status_code == 403
    assert browser.issuer.asked["prompt"] == "login"
    assert browser.issuer.asked["max_age"] == "0"

    browser.issuer.claims = {}
    assert browser.log_in("/a/a1-0", anew=True).status_code == 303
    assert browser.answer().status_code == 303
    person, _ = browser.store.answers[0]
    assert person.authenticated_at_ms > approval().created_at.ToMilliseconds()


def test_the_secret_of_the_client_is_sent_as_the_issuer_says(
    browser: Browser, tmp_path: Any
) -> None:
    """By header, or by form where the issuer takes nothing else (RFC 6749 §2.3.1)."""
    file = tmp_path / "secret"
    file.write_text("s3cret:+\n")
    file.chmod(0o600)
    openid = browser.parts.openid
    assert openid is not None
    openid._settings = replace(openid._settings, client_secret_file=str(file))
    browser.log_in()
    sent = browser.issuer.fetched[-1]
    assert sent.authorization == "Basic YXV0aHotcGFnZTpzM2NyZXQlM0ElMkI="
    openid._description = None
    browser.issuer.description = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    browser.log_in()
    sent = browser.issuer.fetched[-1]
    assert sent.authorization is None
    assert b"client_secret=s3cret%3A%2B" in (sent.form or b"")


def test_a_slow_issuer_keeps_nobody_waiting_who_is_logged_in(browser: Browser) -> None:
    """Logins have threads of their own."""
    browser.log_in()
    openid, release = browser.parts.openid, threading.Event()
    assert openid is not None
    openid._description, fetch = None, openid._get

    def slow(request: FetchRequest) -> Document:
        release.wait(30)
        return fetch(request)

    openid._get = slow
    with ThreadPoolExecutor(8) as pool:
        begun = [
            pool.submit(browser.client.get, "/login/start", follow_redirects=False)
            for _ in range(8)
        ]
        try:
            assert "bank.transfer" in browser.client.get("/a/a1-0").text
            assert not any(one.done() for one in begun)
        finally:
            release.set()
        assert {one.result().status_code for one in begun} == {303}


@pytest.mark.parametrize(
    "path",
    ["//evil.example", "https://evil.example", "/a/../login", "/a/x y", "/a/x?y=1", "", None],
)
def test_a_login_leads_to_the_page_alone(path: str | None) -> None:
    """No link can send a person on to another site."""
    assert own_path(path) == "/"


def test_sessions_end(browser: Browser) -> None:
    """After 30 minutes without a request of the person, after 8 hours, and by logout."""
    now = 1000.0
    opened = Sessions(lambda: now)
    login = Login("corp", "alice", LoginMethod.LOGIN, 0)
    cookie, session = opened.open(login)
    now += sessions.IDLE_SECONDS - 1
    assert opened.find(cookie) is session
    now += sessions.IDLE_SECONDS
    assert opened.find(cookie) is None
    cookie, session = opened.open(login)
    for _ in range(17):
        now += sessions.IDLE_SECONDS - 1
        opened.find(cookie)
    assert opened.find(cookie) is None
    assert len(opened) == 0

    cookie, session = opened.open(login)
    now += sessions.IDLE_SECONDS / 2
    assert opened.find(cookie, is_use=False) is session
    now += sessions.IDLE_SECONDS / 2
    assert opened.find(cookie) is None

    browser.log_in()
    (opened_session,) = browser.parts.sessions._by_key.values()
    used_at = opened_session.used_at
    browser.client.get("/", headers={"x-authz-live": "1"})
    assert opened_session.used_at == used_at
    csrf = {"csrf": browser.form("/")["csrf"]}
    assert opened_session.used_at > used_at
    kept = dict(browser.client.cookies)
    assert browser.post("/logout", csrf).headers["location"] == "/logged-out"
    browser.client.cookies.update(kept)
    assert browser.client.get("/", follow_redirects=False).status_code == 303


def test_a_person_has_a_bounded_number_of_sessions() -> None:
    """The oldest ends."""
    opened = Sessions()
    login = Login("corp", "alice", LoginMethod.LOGIN, 0)
    cookies = [opened.open(login)[0] for _ in range(25)]
    assert len(opened) == 20
    assert opened.find(cookies[0]) is None
    assert opened.find(cookies[-1]) is not None


def test_a_login_ends_the_session_that_the_browser_had(browser: Browser) -> None:
    """So nobody plants a session that another person then logs in to."""
    browser.log_in()
    first = dict(browser.client.cookies)
    browser.log_in()
    browser.client.cookies.clear()
    browser.client.cookies.update(first)
    assert browser.client.get("/", follow_redirects=False).status_code == 303


# --- protection


def test_every_answer_has_the_protecting_headers(browser: Browser) -> None:
    """Errors and files too."""
    browser.log_in()
    style = re.search(r'href="(/static/page\.[0-9a-f]+\.css)"', browser.client.get("/").text)
    assert style is not None
    for path in ("/", "/a/a1-0", "/a/none", "/nothing", "/login", style[1]):
        headers = browser.client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'self'")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["strict-transport-security"] == "max-age=31536000"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
    assert browser.client.get("/a/a1-0").headers["cache-control"] == "no-store"
    assert "immutable" in browser.client.get(style[1]).headers["cache-control"]


def test_pages_load_nothing_from_elsewhere_and_have_no_inline_script(browser: Browser) -> None:
    """The policy would stop both; the pages have neither."""
    browser.log_in()
    for path in ("/", "/a/a1-0", "/passkeys", "/login", "/invite", "/a/none"):
        for tag, attributes in Forms(browser.client.get(path).text).tags:
            assert "style" not in attributes
            assert not any(name.startswith("on") for name in attributes)
            assert tag != "script" or str(attributes.get("src")).startswith("/static/")
            for name in ("src", "href", "action"):
                assert str(attributes.get(name) or "/").startswith(("/", "#"))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": URL, "sec-fetch-site": "cross-site"},
        {"origin": URL, "sec-fetch-site": "same-site"},
    ],
)
def test_a_form_of_another_site_is_refused(browser: Browser, headers: dict[str, str]) -> None:
    """Even with the token of the session."""
    browser.log_in()
    form = {**browser.form("/a/a1-0"), "outcome": "approve"}
    assert browser.post("/a/a1-0", form, headers).status_code == 403
    assert browser.store.answers == []


@pytest.mark.parametrize("token", ["", "another"])
def test_a_form_without_the_token_of_the_session_is_refused(browser: Browser, token: str) -> None:
    """Every form of a session has it."""
    browser.log_in()
    for path in ("/a/a1-0", "/logout", "/passkeys/options", "/passkeys/remove", "/passkeys/rename"):
        form = {**browser.form("/a/a1-0"), "outcome": "approve", "csrf": token}
        assert browser.post(path, form).status_code == 403
    assert browser.store.answers == []


def test_forms_are_bounded(browser: Browser) -> None:
    """In bytes, fields and type."""
    browser.log_in()
    form = {**browser.form("/a/a1-0"), "outcome": "approve"}
    assert browser.post("/a/a1-0", form | {"comment": "x" * 300_000}).status_code == 413
    assert browser.post("/a/a1-0", form | {"comment": "x" * 1025}).status_code == 400
    assert browser.post("/a/a1-0", {f"f{i}": "" for i in range(20)}).status_code == 400
    sent = browser.client.post("/a/a1-0", json=form, headers=OWN)
    assert sent.status_code == 415
    twice = browser.client.post(
        "/a/a1-0",
        content=urlencode([*form.items(), ("outcome", "reject")]),
        headers={**OWN, "content-type": "application/x-www-form-urlencoded"},
    )
    assert twice.status_code == 400
    assert browser.store.answers == []


# --- list and card


def test_the_list_has_queues_with_the_oldest_first(browser: Browser) -> None:
    """Each approval leads to its card."""
    old = approval("old-0")
    old.created_at.FromSeconds(int(time.time()) - 500)
    browser.store.add(old)
    browser.store.add(approval("mine-0", waits_for=[], needs_passkey=True))
    browser.store.approvals["mine-0"].waits_for[:] = ["confirm"]
    browser.log_in()
    text = browser.client.get("/").text
    assert text.index("/a/old-0") < text.index("/a/a1-0")
    assert "Approve as finance" in text
    assert "Confirm what your agent does" in text
    assert "3 open" in text


def test_an_empty_list_says_so(browser: Browser) -> None:
    """And goes on to watch."""
    browser.store.approvals.clear()
    browser.log_in()
    assert "No call waits for you" in browser.client.get("/").text


def test_what_the_agent_wrote_stays_text(browser: Browser) -> None:
    """Markup, hidden characters and reordering are shown, never done."""
    text = json.dumps({"note": "<script>alert(1)</script>\u202e\u200b{{ 7 * 7 }}"}).encode()
    browser.store.add(
        approval(
            arguments_json=text,
            operation="<b>x</b>",
            resource='"><img src=x>',
            purpose="<i>p</i>",
        )
    )
    browser.log_in()
    for path in ("/", "/a/a1-0", "/a/a1-0?whole=1"):
        page = browser.client.get(path).text
        assert "<script>alert" not in page
        assert "<img" not in page
        assert "<b>x" not in page
        assert "\u202e" not in page
        assert "\u200b" not in page
    assert "right-to-left override" in browser.client.get("/a/a1-0").text
    assert "{{ 7 * 7 }}" in browser.client.get("/a/a1-0").text


def test_an_approval_of_others_looks_as_a_missing_one(browser: Browser) -> None:
    """Nobody learns that it exists."""
    browser.log_in()
    page = browser.client.get("/a/none-0")
    assert page.status_code == 404
    assert "or you may not answer it" in page.text


def test_a_card_that_is_not_open_or_not_the_persons_has_no_answer(browser: Browser) -> None:
    """It says why."""
    browser.log_in()
    browser.store.approvals["a1-0"].answerable = False
    assert "waits for other people" in browser.client.get("/a/a1-0").text
    browser.store.approvals["a1-0"].status = REJECTED
    page = browser.client.get("/a/a1-0").text
    assert "This approval is rejected" in page
    assert 'name="outcome"' not in page


# --- answers by login


def test_a_person_approves_by_login(browser: Browser) -> None:
    """The engine gets the person, both digests and the comment; the person is told what happens next."""
    browser.log_in()
    done = browser.answer(comment="ok <3")
    assert done.headers["location"] == "/done/a1-0"
    person, request = browser.store.answers[0]
    assert (person.issuer, person.sub, person.method) == ("corp", "alice", "login")
    assert person.claims == {"groups": ["finance"]}
    assert person.passkey is None
    assert request.status == APPROVED
    assert request.digest == b"\x01" * 32
    assert len(request.card_digest) == 32
    assert request.comment == "ok <3"
    assert request.reject_reason == ""
    assert "exactly this call, once" in browser.client.get("/done/a1-0").text


def test_a_person_rejects_with_a_reason_of_the_list(browser: Browser) -> None:
    """Without a reason the page asks for one."""
    browser.log_in()
    assert browser.answer("reject").status_code == 400
    assert browser.answer("reject", reason="wrong_recipient").status_code == 303
    _, request = browser.store.answers[0]
    assert (request.status, request.reject_reason) == (REJECTED, "wrong_recipient")


def endorsable() -> approvals_pb2.ApprovalEndorsement:
    """Return an endorsement that a person may give."""
    return approvals_pb2.ApprovalEndorsement(
        operations=["bank.send", "bank.transfer"],
        values=[approvals_pb2.ApprovalValue(role="recipient", value="eve<b>@evil.example")],
        uses=2,
        within_seconds=1800,
    )


def test_a_person_endorses_only_with_a_button_of_its_own(browser: Browser) -> None:
    """The first button, and so the key Enter, approves the call and nothing else."""
    browser.log_in()
    assert 'value="endorse"' not in browser.client.get("/a/a1-0").text
    browser.store.add(approval(endorses=endorsable()))
    page = browser.client.get("/a/a1-0").text
    assert page.index('value="approve"') < page.index('value="endorse"')
    assert "bank.send, bank.transfer" in page
    assert "<b>" not in page
    browser.answer("endorse")
    browser.store.approvals["a1-0"].status = PENDING
    browser.answer("approve")
    answers = [(request.status, request.endorse) for _, request in browser.store.answers]
    assert answers == [(APPROVED, True), (APPROVED, False)]


@pytest.mark.parametrize("field", ["digest", "card_digest"])
def test_another_card_than_the_one_shown_is_not_answered(browser: Browser, field: str) -> None:
    """Neither a card that only the form names, nor a card that this session never saw."""
    browser.log_in()
    assert browser.answer(**{field: "00" * 32}).status_code == 409
    form = browser.form("/a/a1-0")
    browser.log_in()
    csrf = browser.form("/")["csrf"]
    assert browser.post("/a/a1-0", form | {"csrf": csrf, "outcome": "approve"}).status_code == 409
    assert browser.store.answers == []


def test_a_card_that_changed_is_read_again(browser: Browser) -> None:
    """Also where the person had another tab; a script that only looks changes nothing."""
    browser.log_in()
    form = browser.form("/a/a1-0")
    browser.store.add(approval(purpose=" of suppliers"))
    browser.client.get("/a/a1-0", headers={"x-authz-live": "1"})
    assert browser.post("/a/a1-0", form | {"outcome": "reject"}).status_code == 400
    browser.form("/a/a1-0")
    refused = browser.post("/a/a1-0", form | {"outcome": "approve"})
    assert refused.status_code == 409
    assert "Read the card again" in refused.text


def test_a_call_that_is_not_shown_whole_is_approved_from_the_whole_view(browser: Browser) -> None:
    """Rejecting needs no more than the short view."""
    long = json.dumps({"text": "word " * 2000}).encode()
    browser.store.add(approval(arguments_json=long))
    browser.log_in()
    page = browser.client.get("/a/a1-0").text
    assert "bytes of this call are not shown" in page
    assert 'value="approve"' not in page
    assert browser.answer().status_code == 409
    whole = browser.form("/a/a1-0?whole=1")
    assert browser.post("/a/a1-0", whole | {"outcome": "approve"}).status_code == 303


def test_a_call_that_cannot_be_shown_can_only_be_rejected(browser: Browser) -> None:
    """In the whole view, too."""
    browser.store.add(approval(cannot_be_shown="its body is binary"))
    browser.log_in()
    for path in ("/a/a1-0", "/a/a1-0?whole=1"):
        form = browser.form(path)
        assert browser.post("/a/a1-0", form | {"outcome": "approve"}).status_code == 409
    assert browser.answer("reject", reason="wrong_recipient").status_code == 303


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (GrpcCode.FAILED_PRECONDITION, 409),
        (GrpcCode.PERMISSION_DENIED, 404),
        (GrpcCode.RESOURCE_EXHAUSTED, 503),
        (GrpcCode.UNAVAILABLE, 503),
    ],
)
def test_a_refusal_of_the_engine_is_shown(browser: Browser, code: int, status: int) -> None:
    """With its text where it concerns the answer."""
    browser.log_in()
    browser.store.refusal = ApiError("APPROVAL_EXPIRED", code, "the approval has expired")
    refused = browser.answer()
    assert refused.status_code == status
    assert ("the approval has expired" in refused.text) == (status == 409)


def test_a_person_chooses_among_queues(browser: Browser) -> None:
    """Where the approval waits for several."""
    browser.store.approvals["a1-0"].waits_for[:] = ["approve:finance", "confirm"]
    browser.log_in()
    assert browser.answer(queue="confirm").status_code == 303
    assert browser.store.answers[0][1].queue == "confirm"


# --- passkeys


def test_a_passkey_signs_exactly_the_answer(browser: Browser) -> None:
    """The engine gets the assertion; the counter of the passkey goes on."""
    browser.log_in()
    passkey = browser.add_passkey()
    browser.store.approvals["a1-0"].needs_passkey = True
    assert browser.sign(passkey).status_code == 303
    person, request = browser.store.answers[0]
    assert person.method == "passkey"
    assert person.passkey is not None
    assert request.status == APPROVED
    stored = browser.store.passkeys("corp", "alice")[0]
    assert stored["credential_id"] == person.passkey.credential_id
    assert stored["sign_count"] == 1
    assert "Laptop" in browser.client.get("/passkeys").text


def test_a_stored_assertion_proves_the_answer(browser: Browser) -> None:
    """From the record alone, by a computation of its own."""
    browser.log_in()
    passkey = browser.add_passkey()
    browser.sign(passkey)
    person, request = browser.store.answers[0]
    stored = person.passkey
    assert stored is not None
    client_data = base64url_to_bytes(stored.client_data_json)
    challenge = base64url_to_bytes(json.loads(client_data)["challenge"])
    nonce, end, digest = challenge[:16], challenge[16:24], challenge[24:]
    parts = (
        b"authz approval answer 1",
        request.card_digest,
        request.digest,
        b"a1-0",
        b"approve",
        end,
        nonce,
    )
    text = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    assert hashlib.sha256(text).digest() == digest
    signed = base64url_to_bytes(stored.authenticator_data) + hashlib.sha256(client_data).digest()
    public = passkey.key.public_key()
    public.verify(base64url_to_bytes(stored.signature), signed, ec.ECDSA(hashes.SHA256()))
    assert 0 < int.from_bytes(end, "big") - time.time() <= 300


def test_an_approval_that_needs_a_passkey_leads_to_one(browser: Browser) -> None:
    """Where the person has none."""
    browser.store.approvals["a1-0"].needs_passkey = True
    browser.log_in()
    page = browser.client.get("/a/a1-0").text
    assert "you have none" in page
    assert 'name="outcome"' not in page


REFUSED_ASSERTIONS: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "another outcome": ({"outcome": "reject"}, {}),
    "an endorsement, too": ({"outcome": "endorse"}, {}),
    "another origin": ({}, {"origin": "https://authz.example.evil.example"}),
    "no user verification": ({}, {"verified": False}),
    "no assertion of a passkey": ({"assertion": "{}"}, {}),
    "no JSON": ({"assertion": "x"}, {}),
}


@pytest.mark.parametrize(
    ("changes", "how"), REFUSED_ASSERTIONS.values(), ids=list(REFUSED_ASSERTIONS)
)
def test_an_assertion_of_anything_else_is_refused(
    browser: Browser, changes: dict[str, str], how: dict[str, Any]
) -> None:
    """Of another answer, another site, or without user verification."""
    browser.log_in()
    passkey = browser.add_passkey()
    assert browser.sign(passkey, changes=changes, **how).status_code == 403
    assert browser.store.answers == []


def test_an_assertion_over_another_card_is_refused(browser: Browser) -> None:
    """The signature holds for the card that was shown when it was made."""
    browser.log_in()
    passkey = browser.add_passkey()
    form = {**browser.form("/a/a1-0"), "outcome": "approve"}
    options = browser.post("/a/a1-0/challenge", form, JSON)
    assertion = passkey.get(options.text)
    browser.store.add(approval(purpose=" and more"))
    changed = {**browser.form("/a/a1-0"), "outcome": "approve", "assertion": assertion}
    refused = browser.post("/a/a1-0", changed)
    assert refused.status_code == 403
    assert "a different answer" in refused.text
    assert browser.store.answers == []


def test_an_assertion_is_used_once(browser: Browser) -> None:
    """A repeated form is refused, and so is one after five minutes."""
    browser.log_in()
    passkey = browser.add_passkey()
    form = {**browser.form("/a/a1-0"), "outcome": "approve"}
    options = browser.post("/a/a1-0/challenge", form, JSON)
    form["assertion"] = passkey.get(options.text)
    assert browser.post("/a/a1-0", form).status_code == 303
    browser.store.approvals["a1-0"].status = approval().status
    assert browser.post("/a/a1-0", form).status_code == 403
    options = browser.post("/a/a1-0/challenge", form, JSON)
    form["assertion"] = passkey.get(options.text)
    browser.offset = 301
    assert browser.post("/a/a1-0", form).status_code == 403
    assert len(browser.store.answers) == 1


def test_an_assertion_of_another_passkey_is_refused(browser: Browser) -> None:
    """A passkey that nobody registered, another person's passkey, and a removed passkey."""
    browser.log_in()
    passkey = browser.add_passkey()
    assert browser.sign(Authenticator()).status_code == 403
    stored = browser.store.passkeys("corp", "alice")[0]
    browser.store.put_passkey("corp", "bob", stored)
    form = {**browser.form("/passkeys")}
    removed = {"csrf": form["csrf"], "id": str(stored["credential_id"])}
    other = browser.add_passkey()
    assert browser.post("/passkeys/remove", removed).status_code == 303
    assert browser.sign(passkey).status_code == 403
    assert browser.store.answers == []
    assert browser.sign(other).status_code == 303


def test_a_copied_passkey_is_refused(browser: Browser) -> None:
    """Its counter does not go on from the last one."""
    browser.log_in()
    passkey = browser.add_passkey()
    passkey.sign_count = 7
    assert browser.sign(passkey).status_code == 303
    browser.store.approvals["a1-0"].status = approval().status
    passkey.sign_count = 3
    assert browser.sign(passkey).status_code == 403


def test_passkeys_change_only_soon_after_a_login(browser: Browser) -> None:
    """Five minutes; the name can always be changed."""
    browser.log_in()
    passkey = browser.add_passkey()
    stored = browser.store.passkeys("corp", "alice")[0]
    csrf = {"csrf": browser.form("/passkeys")["csrf"]}
    browser.offset = 301
    page = browser.client.get("/passkeys").text
    assert "/login/start?anew=1&amp;to=/passkeys" in page
    assert "Add a passkey</button>" not in page
    assert browser.post("/passkeys/options", csrf, JSON).status_code == 403
    late = {**csrf, "credential": "{}", "name": ""}
    assert browser.post("/passkeys/add", late, JSON).status_code == 403
    removed = {**csrf, "id": str(stored["credential_id"])}
    assert browser.post("/passkeys/remove", removed).status_code == 403
    assert browser.post("/passkeys/rename", {**removed, "name": "Phone"}).status_code == 303
    assert browser.store.passkeys("corp", "alice")[0]["name"] == "Phone"
    assert browser.post("/passkeys/rename", {**removed, "name": " "}).status_code == 403
    assert passkey.credential_id


@pytest.mark.parametrize("how", [{"verified": False}, {"origin": "https://evil.example"}])
def test_a_passkey_without_user_verification_or_of_another_site_is_not_added(
    browser: Browser, how: dict[str, Any]
) -> None:
    """WebAuthn §7.1."""
    browser.log_in()
    with pytest.raises(AssertionError, match="refused"):
        browser.add_passkey(**how)
    assert browser.store.passkeys("corp", "alice") == []


def test_a_person_has_a_bounded_number_of_passkeys(browser: Browser) -> None:
    """Ten."""
    browser.log_in()
    for _ in range(10):
        browser.add_passkey()
    with pytest.raises(AssertionError, match="Remove one first"):
        browser.add_passkey()


# --- people without an issuer


def invite(browser: Browser, passkey: Authenticator, secret: str) -> httpx2.Response:
    """Makes the first passkey of an invited person."""
    options = browser.post("/invite/options", {"secret": secret}, JSON)
    if options.status_code != 200:
        return options
    fields = {"secret": secret, "credential": passkey.create(options.text)}
    return browser.post("/invite/add", fields, JSON)


def log_in_by_passkey(browser: Browser, passkey: Authenticator) -> httpx2.Response:
    """Logs in without an issuer."""
    options = browser.post("/login/passkey/options", {"to": "/a/a1-0"}, JSON)
    return browser.post("/login/passkey", {"assertion": passkey.get(options.text)}, JSON)


def test_an_invited_person_logs_in_and_answers_by_passkey(browser: Browser) -> None:
    """Each answer is signed, also where the approval would take a login."""
    secret, _ = browser.parts.invitations.make("local", "root")
    passkey = Authenticator()
    assert "Make a passkey" in browser.client.get("/invite").text
    assert invite(browser, passkey, secret).json() == {"to": "/login"}
    assert len(browser.parts.sessions) == 0

    assert log_in_by_passkey(browser, passkey).json() == {"to": "/a/a1-0"}
    assert browser.answer().status_code == 403
    assert browser.sign(passkey, "reject").status_code == 303
    person, _ = browser.store.answers[0]
    assert (person.issuer, person.sub, person.method) == ("local", "root", "passkey")
    assert person.claims == {}


def test_an_invitation_is_used_once_and_ends(browser: Browser) -> None:
    """After ten minutes, and when another one is made for the person."""
    secret, _ = browser.parts.invitations.make("local", "root")
    assert invite(browser, Authenticator(), secret).status_code == 200
    assert invite(browser, Authenticator(), secret).status_code == 404
    first, _ = browser.parts.invitations.make("local", "root")
    second, _ = browser.parts.invitations.make("local", "root")
    assert invite(browser, Authenticator(), first).status_code == 404
    browser.offset = 601
    assert invite(browser, Authenticator(), second).status_code == 404
    assert len(browser.store.passkeys("local", "root")) == 1


def test_a_passkey_of_a_person_of_an_issuer_does_not_log_in(browser: Browser) -> None:
    """Claims, and so roles, come only from the issuer; a passkey cannot name somebody else either."""
    browser.log_in()
    passkey = browser.add_passkey()
    assert log_in_by_passkey(browser, passkey).status_code == 403
    passkey.user_handle = b"corp/alice"
    assert log_in_by_passkey(browser, passkey).status_code == 403
    passkey.user_handle = b"local/root"
    assert log_in_by_passkey(browser, passkey).status_code == 403


def test_a_login_by_passkey_is_used_once(browser: Browser) -> None:
    """A recorded answer logs nobody in."""
    secret, _ = browser.parts.invitations.make("local", "root")
    passkey = Authenticator()
    invite(browser, passkey, secret)
    options = browser.post("/login/passkey/options", {"to": "/"}, JSON)
    kept = dict(browser.client.cookies)
    assertion = {"assertion": passkey.get(options.text)}
    assert browser.post("/login/passkey", assertion, JSON).status_code == 200
    browser.client.cookies.update(kept)
    browser.store.keys["local", "root"] = {
        name: {**one, "sign_count": 0} for name, one in browser.store.keys["local", "root"].items()
    }
    assert browser.post("/login/passkey", assertion, JSON).status_code == 403


# --- live changes


def test_an_open_page_is_told_of_changes(browser: Browser) -> None:
    """A card only of its own; a session that ended is told nothing more."""
    browser.log_in()
    browser.form("/a/a1-0")
    (session,) = browser.parts.sessions._by_key.values()

    async def watch(approval_id: str, change: Callable[[], None]) -> list[bytes]:
        response = browser.parts.live.stream(session, approval_id)
        stream = response.body_iterator.__aiter__()
        told = [await stream.__anext__()]
        change()
        with suppress(TimeoutError):
            told.append(await asyncio.wait_for(stream.__anext__(), 2))
        await stream.aclose()  # type: ignore[attr-defined]
        return [bytes(one) for one in told]  # type: ignore[arg-type]

    own = asyncio.run(watch("a1-0", lambda: browser.store.add(approval())))
    assert own[0].startswith(b"retry: 3000\nevent: changed")
    assert own[1] == b"event: changed\ndata:\n\n"
    other = asyncio.run(watch("a1-0", lambda: browser.store.add(approval("b-0"))))
    assert len(other) == 1
    everything = asyncio.run(watch("", lambda: browser.store.add(approval("b-0"))))
    assert len(everything) == 2
    assert session.streams == 0


def test_streams_are_bounded_and_tell_nobody_of_others(browser: Browser) -> None:
    """A card that was not shown has none, and a fifth stream none either."""
    browser.log_in()
    assert browser.client.get("/events?id=a1-0").status_code == 404
    browser.form("/a/a1-0")
    live = browser.parts.live
    live._most = 0
    assert browser.client.get("/events?id=a1-0").status_code == 204
    browser.client.cookies.clear()
    assert browser.client.get("/events", follow_redirects=False).status_code == 303


def test_a_listener_with_open_streams_stops_at_once(browser: Browser) -> None:
    """Each stream ends whole, so that the browser connects again to the next node."""
    browser.log_in()
    live = browser.parts.live
    app: Any = ApprovalsPage(browser.parts).application()
    server = WebServer(WebSettings("approvals", "127.0.0.1:0", None), app, live.close)
    server.start()
    cookie = f"__Host-authz-session={browser.client.cookies['__Host-authz-session']}"
    url = f"http://{server.address}/events"
    with httpx2.Client() as client, client.stream("GET", url, headers={"cookie": cookie}) as answer:
        chunks = answer.iter_raw()
        assert next(chunks).startswith(b"retry: 3000")
        assert len(live) == 1
        started = time.monotonic()
        server.close()
        assert time.monotonic() - started < 1.5
        assert b"".join(chunks) == b""
    assert len(live) == 0


# --- places


def test_a_page_below_a_path_stays_below_it() -> None:
    """Behind a proxy that shares its host."""
    for browser in build(url=f"{URL}/authz", base="/authz"):
        browser.client.base_url = f"{URL}/authz/"
        begun = browser.client.get("login/start?to=/a/a1-0", follow_redirects=False)
        answer = browser.issuer.authorize(begun.headers["location"])
        done = browser.client.get("login/callback", params=answer, follow_redirects=False)
        assert done.headers["location"] == "/authz/a/a1-0"
        assert browser.issuer.asked["redirect_uri"] == f"{URL}/authz/login/callback"
        page = browser.client.get("a/a1-0").text
        assert 'action="/authz/a/a1-0"' in page
        assert 'href="/a/' not in page
