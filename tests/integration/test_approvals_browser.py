"""The approvals page in a real Chromium: by keyboard, on a phone, live, and with passkeys of a virtual authenticator."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from authz.approvals import ApprovalHub, Invitations
from authz.config import Config, Tls
from authz.server.http.approvals_page.build import build_page
from authz.server.http.approvals_page.sessions import Sessions
from authz.server.http.server import WebServer, WebSettings
from authz.trust import Fetcher, FetchRequest, Reach
from tests.support.approving import APPROVED, PENDING, REJECTED, Approvals, approval
from tests.support.browsing import (
    CLIENT_ID,
    CLIENT_SECRET,
    add_authenticator,
    chromium,
    log_in,
    running_issuer,
)
from tests.support.keyserver import WebAuthority
from tests.support.waiting import eventually, free_port

pytestmark = [pytest.mark.peers, pytest.mark.slow, pytest.mark.timeout(300)]


@dataclass
class Place:
    """A page over approvals in memory, and its issuer."""

    url: str
    store: Approvals
    invitations: Invitations
    sessions: Sessions


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The page on loopback, with npm's oidc-provider."""
    with running_place(tmp_path_factory.mktemp("page")) as running:
        yield running


@contextmanager
def running_place(folder: Path, tls: Tls | None = None) -> Iterator[Place]:
    """Serves the page, over https if TLS is given."""
    port, issuer_port = free_port(), free_port()
    scheme = "http" if tls is None else "https"
    url, secret = f"{scheme}://localhost:{port}", folder / "secret"
    secret.write_text(CLIENT_SECRET)
    secret.chmod(0o600)
    groups = json.dumps({"alice": ["finance"], "carol": ["finance"]})
    with running_issuer(issuer_port, f"{url}/login/callback", groups) as issuer:
        config = _config(url, issuer, secret, port)
        store, failures, invitations = Approvals(), list[BaseException](), Invitations()
        hub = ApprovalHub(store, failures.append)
        request = FetchRequest(f"{issuer}/jwks", Reach(loopback_only=True))
        jwks = Fetcher().get(request).text
        page = build_page(
            config,
            store,
            hub,
            invitations,
            get=Fetcher().get,
            keys=lambda _: jwks,
            counted=lambda _name, _status: None,
            failed=failures.append,
            log=structlog.get_logger(),
        )
        server = WebServer(
            WebSettings("approvals", f"127.0.0.1:{port}", tls), page.application(), page.close
        )
        hub.start()
        server.start()
        yield Place(url, store, invitations, page._parts.sessions)
        server.close()
        hub.close()
        assert failures == []


def _config(url: str, issuer: str, secret: Path, port: int) -> Config:
    return Config.model_validate_json(
        json.dumps(
            {
                "bundle": {"path": "/nowhere"},
                "trust": {
                    "issuers": {
                        "corp": {
                            "issuer": issuer,
                            "audience": ["authz"],
                            "algorithms": ["RS256"],
                            "jwks": {"discovery": True, "insecure_dev": True},
                            "claims": ["groups"],
                        }
                    }
                },
                "listeners": {
                    "main": {"address": "127.0.0.1:9191", "insecure_dev": True},
                    "approvals": {"address": f"127.0.0.1:{port}", "insecure_dev": True},
                },
                "approvals": {
                    "url": url,
                    "login": {
                        "issuer": "corp",
                        "client_id": CLIENT_ID,
                        "client_secret_file": str(secret),
                        "scopes": ["openid", "profile"],
                    },
                    "passkeys": {"rp_id": "localhost", "name": "Authz"},
                },
            }
        )
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium."""
    with chromium() as started:
        yield started


#: The browser says so of each refusal, and of a stream that connects again after the session of its page has ended.
EXPECTED = ("Failed to load resource", "Aborting the connection")


@pytest.fixture
def page(browser: Any, place: Place) -> Iterator[Any]:
    """A page of a browser that nobody used before. Nothing may break the policy of the page, or fail in its script."""
    place.store.approvals.clear()
    place.store.answers.clear()
    place.store.keys.clear()
    place.store.add(approval())
    context = browser.new_context()
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on(
        "console",
        lambda message: (
            complaints.append(message.text)
            if message.type == "error" and "Failed to load resource" not in message.text
            else None
        ),
    )
    yield opened
    context.close()
    assert complaints == []


def test_a_person_answers_with_the_keyboard_alone(page: Any, place: Place) -> None:
    """From the link in a message, over the login at the issuer, to the answer."""
    page.goto(f"{place.url}/a/a1-0")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    for _ in range(9):
        page.keyboard.press("Tab")
        if "Log in at corp" in page.evaluate("document.activeElement.textContent"):
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("input[name=login]")
    log_in(page, "alice")
    page.wait_for_url(f"{place.url}/a/a1-0")
    assert page.evaluate("document.querySelector('time').dataset.local") == "1"
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.value") == "approve":
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("text=You approved")
    (person, answer), *_ = place.store.answers
    assert (person.name, person.method, answer.status) == ("corp/alice", "login", APPROVED)
    assert person.claims == {"groups": ["finance"]}


def test_a_phone_shows_the_card_without_scrolling_sideways(page: Any, place: Place) -> None:
    """360 pixels wide, with a value of one long word."""
    long = json.dumps({"note": "x" * 500, "list": [{"deep": {"er": "y" * 90}}]}).encode()
    place.store.add(approval(arguments_json=long, resource="z" * 300))
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(f"{place.url}/a/a1-0")
    page.click("text=Log in at corp")
    log_in(page, "alice")
    for path in ("/a/a1-0", "/", "/passkeys"):
        page.goto(place.url + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_screen_reader_finds_landmarks_labels_and_headings(page: Any, place: Place) -> None:
    """Each field has a name, each page one heading, and changes are announced."""
    page.goto(f"{place.url}/a/a1-0")
    page.click("text=Log in at corp")
    log_in(page, "alice")
    for path in ("/", "/a/a1-0", "/passkeys"):
        page.goto(place.url + path)
        assert page.get_by_role("banner").count() == 1
        assert page.get_by_role("main").count() == 1
        assert page.get_by_role("navigation", name="Page").count() == 1
        assert page.get_by_role("heading", level=1).count() == 1
        assert page.get_by_role("status").count() == 1
        names = "[...document.querySelectorAll('textarea, select, input:not([type=hidden])')]"
        assert page.evaluate(f"{names}.every(one => one.labels.length > 0)")
    page.goto(f"{place.url}/a/a1-0")
    assert page.get_by_role("button", name="Approve this call").count() == 1
    assert page.get_by_role("combobox", name="Reason for a rejection").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(page: Any, place: Place, scheme: str) -> None:
    """WCAG 2.2, 1.4.3: at least 4.5 to 1 for every text of the card."""
    text = json.dumps({"to": "\u202eevil", "iban": "DE89370400440532013000"}).encode()
    place.store.add(approval(arguments_json=text))
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{place.url}/a/a1-0")
    page.click("text=Log in at corp")
    log_in(page, "alice")
    page.goto(f"{place.url}/a/a1-0")
    assert page.evaluate(CONTRAST) == []


# Texts whose colours are too close, by the formula of WCAG.
CONTRAST = """() => {
  const context = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = colour => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const paper = element => {
    for (let one = element; one; one = one.parentElement) {
      const colour = rgba(getComputedStyle(one).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const bad = [];
  for (const element of document.querySelectorAll('main *, header *')) {
    const text = [...element.childNodes].filter(one => one.nodeType === 3).map(one => one.data.trim()).join('');
    if (!text || !element.checkVisibility() || element.closest('option')) continue;
    const [a, b] = [light(rgba(getComputedStyle(element).color)), light(paper(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.push(`${text.slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return bad;
}"""


def test_open_pages_follow_changes(page: Any, place: Place) -> None:
    """The list shows a new approval; a card that somebody else answered takes no answer."""
    page.goto(place.url)
    page.click("text=Log in at corp")
    log_in(page, "alice")
    page.wait_for_selector("text=bank.transfer")
    place.store.add(approval("b-0", operation=".second"))
    page.wait_for_selector('a[href="/a/b-0"]')
    page.wait_for_selector("text=The list has changed: 2 open.")

    page.goto(f"{place.url}/a/a1-0")
    answered = approval()
    answered.status = REJECTED
    place.store.add(answered)
    page.wait_for_selector("text=It is now rejected.")
    assert page.get_by_role("button", name="Approve this call").is_disabled()


@pytest.mark.parametrize("path", ["/", "/a/a1-0"])
def test_an_open_page_says_that_its_session_ended(page: Any, place: Place, path: str) -> None:
    """It asks no more, and sends nobody away from what they read."""
    page.goto(place.url)
    page.click("text=Log in at corp")
    log_in(page, "alice")
    page.goto(place.url + path)
    eventually(lambda: any(one.streams for one in place.sessions._by_key.values()))
    place.sessions.close_all_of("corp/alice")
    place.store.add(approval())
    page.wait_for_selector("text=You are logged out. Load this page again to log in.")
    assert page.url == place.url + path


def test_a_passkey_is_made_and_signs_an_answer(page: Any, place: Place) -> None:
    """With user verification; afterwards it can be renamed and removed."""
    place.store.approvals["a1-0"].needs_passkey = True
    add_authenticator(page)
    page.goto(f"{place.url}/a/a1-0")
    page.click("text=Log in at corp")
    log_in(page, "alice")
    page.click("main a:has-text('Add a passkey')")
    page.fill("#name", "Laptop")
    page.click("button:has-text('Add a passkey')")
    page.wait_for_selector("h2:has-text('Laptop')")

    page.goto(f"{place.url}/a/a1-0")
    page.select_option("#reason", "wrong_recipient")
    page.click("button:has-text('Reject')")
    page.wait_for_selector("text=You rejected")
    (person, answer), *_ = place.store.answers
    assert person.method == "passkey"
    assert person.passkey is not None
    assert (answer.status, answer.reject_reason) == (REJECTED, "wrong_recipient")

    page.goto(f"{place.url}/passkeys")
    page.click("button:has-text('Remove')")
    page.wait_for_selector("text=You have no passkey yet")
    assert place.store.passkeys("corp", "alice") == []


def test_a_passkey_that_does_not_verify_its_user_signs_nothing(page: Any, place: Place) -> None:
    """The browser refuses, and the page says so."""
    session = add_authenticator(page)
    page.goto(f"{place.url}/passkeys")
    page.click("text=Log in at corp")
    log_in(page, "alice")
    page.click("button:has-text('Add a passkey')")
    page.wait_for_selector("main li h2")
    session.send(
        "WebAuthn.setUserVerified",
        {"authenticatorId": session.authenticator, "isUserVerified": False},
    )
    place.store.approvals["a1-0"].needs_passkey = True
    page.goto(f"{place.url}/a/a1-0")
    page.click("button:has-text('Approve this call')")
    page.wait_for_selector("text=The passkey was not used")
    assert place.store.answers == []


# Another script sends the form as a rejection, after the passkey signed an approval.
CHANGE_OUTCOME = """() => {
  const submit = HTMLFormElement.prototype.submit;
  HTMLFormElement.prototype.submit = function () {
    for (const field of this.querySelectorAll('[name=outcome]')) field.value = 'reject';
    this.elements.reason.value = 'wrong_recipient';
    submit.call(this);
  };
}"""


def test_a_card_that_a_script_changed_is_not_answered(page: Any, place: Place) -> None:
    """Whether the digest changes before the passkey signs, or after."""
    add_authenticator(page)
    page.goto(f"{place.url}/passkeys")
    page.click("text=Log in at corp")
    log_in(page, "alice")
    page.click("button:has-text('Add a passkey')")
    page.wait_for_selector("main li h2")
    place.store.approvals["a1-0"].needs_passkey = True
    page.goto(f"{place.url}/a/a1-0")
    page.evaluate("document.querySelector('[name=card_digest]').value = '00'.repeat(32)")
    page.click("button:has-text('Approve this call')")
    page.wait_for_selector("text=its card has changed since you read it")
    page.goto(f"{place.url}/a/a1-0")
    page.evaluate(CHANGE_OUTCOME)
    page.click("button:has-text('Approve this call')")
    page.wait_for_selector("text=signed a different answer")
    assert place.store.answers == []


def test_an_invited_person_needs_no_issuer(page: Any, place: Place) -> None:
    """The link makes a passkey, which logs in and answers; it works once."""
    add_authenticator(page)
    secret, _ = place.invitations.make("local", "root")
    page.goto(f"{place.url}/invite#{secret}")
    page.click("button:has-text('Make a passkey')")
    page.wait_for_url(f"{place.url}/login")
    page.click("button:has-text('Log in with a passkey')")
    page.wait_for_selector("h1:has-text('Open approvals')")
    page.click("text=bank.transfer")
    page.click("button:has-text('Approve this call')")
    page.wait_for_selector("text=You approved")
    assert place.store.answers[0][0].name == "local/root"
    page.goto("about:blank")
    page.goto(f"{place.url}/invite#{secret}")
    page.click("button:has-text('Make a passkey')")
    page.wait_for_selector("text=This invitation was used")


def test_over_https_cookies_belong_to_this_host_alone(browser: Any, tmp_path: Path) -> None:
    """Login, answer and logout, with `__Host-` cookies that no script reads."""
    pem = str(WebAuthority().leaf(tmp_path))
    context = browser.new_context(ignore_https_errors=True)
    with running_place(tmp_path, Tls(cert_file=pem, key_file=pem)) as place:
        place.store.add(approval())
        page = context.new_page()
        page.goto(f"{place.url}/a/a1-0")
        page.click("text=Log in at corp")
        log_in(page, "alice")
        page.wait_for_url(f"{place.url}/a/a1-0")
        cookies = [one for one in context.cookies() if one["name"].startswith("__Host-")]
        assert [one["name"] for one in cookies] == ["__Host-authz-session"]
        assert all(one["httpOnly"] and one["secure"] for one in cookies)
        assert "authz-session" not in page.evaluate("document.cookie")
        page.click("button:has-text('Approve this call')")
        page.wait_for_selector("text=You approved")
        page.click("button:has-text('Log out')")
        page.wait_for_selector("text=You are logged out")
        page.goto(place.url)
        page.wait_for_selector("h1:has-text('Log in')")
        # Before the server stops: a connection that opens meanwhile would never be closed.
        context.close()


def test_a_login_before_the_call_is_renewed(page: Any, place: Place) -> None:
    """The issuer lets the person log in anew, and the card can then be answered."""
    page.goto(place.url)
    page.click("text=Log in at corp")
    log_in(page, "alice")
    late = approval("late-0")
    # Issuers tell the time of a login in seconds.
    made_at = int(time.time()) + 2
    late.created_at.FromSeconds(made_at)
    eventually(lambda: time.time() > made_at)
    place.store.add(late)
    page.goto(f"{place.url}/a/late-0")
    page.click("main a:has-text('Log in again')")
    page.wait_for_selector("input[name=login]")
    log_in(page, "alice")
    page.wait_for_url(f"{place.url}/a/late-0")
    page.click("button:has-text('Approve this call')")
    page.wait_for_selector("text=You approved")
    person, _ = place.store.answers[0]
    assert person.authenticated_at_ms >= late.created_at.ToMilliseconds()
    assert place.store.approvals["late-0"].status != PENDING
