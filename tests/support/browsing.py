"""A real Chromium at the page where people answer, with passkeys of a virtual authenticator."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.site import browser_program
from tests.support.tools import login_issuer
from tests.support.waiting import accepts, eventually

ISSUER_SCRIPT: Final = Path(__file__).with_name("login_issuer.mjs")
CLIENT_ID: Final = "authz-page"
CLIENT_SECRET: Final = "only-for-tests"


@contextmanager
def running_issuer(
    port: int, redirect_uri: str, groups: str, keys: str = "", devices: str = ""
) -> Iterator[str]:
    """Runs npm's oidc-provider as an issuer, and yields its `iss`.

    Args:
        port: Its port on loopback.
        redirect_uri: URL to which it sends browsers back.
        groups: JSON: account name to its groups.
        keys: Its private keys, as JWKS. Default: keys of its own.
        devices: Folder in the place of people's phones (CIBA). Default: it asks nobody at a phone.
    """
    folder = login_issuer()
    program = shutil.which("node") or "node"
    command = [program, str(ISSUER_SCRIPT), str(port), CLIENT_ID, CLIENT_SECRET, redirect_uri]
    environment = {**os.environ, "PEER": str(folder), "GROUPS": groups, "JWKS": keys}
    environment["DEVICES"] = devices
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        eventually(lambda: accepts(port))
        yield f"http://localhost:{port}"
    finally:
        process.terminate()
        process.wait(timeout=10)


@contextmanager
def chromium() -> Iterator[Any]:
    """Starts Chromium, and yields playwright's browser."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="run: make setup")
    program = browser_program()
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def add_authenticator(page: Any, *, verifies: bool = True) -> Any:
    """Gives a page a virtual authenticator; returns the session that drives it.

    Args:
        page: Page of playwright.
        verifies: It verifies its user.
    """
    session = page.context.new_cdp_session(page)
    session.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": verifies,
        "automaticPresenceSimulation": True,
    }
    session.authenticator = session.send("WebAuthn.addVirtualAuthenticator", {"options": options})[
        "authenticatorId"
    ]
    return session


def log_in(page: Any, name: str) -> None:
    """Logs in at the issuer, from its first form to the page."""
    page.fill("input[name=login]", name)
    page.fill("input[name=password]", "x")
    page.click("button[type=submit]")
    # The issuer asks for consent where it was not given before. Each page of ours names the person.
    consent, person = "button[type=submit]:has-text('Continue')", "header .who span"
    page.wait_for_selector(f"{consent}, {person}")
    if page.locator(person).count() == 0:
        page.click(consent)
        page.wait_for_selector(person)
