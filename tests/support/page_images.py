"""Pictures of the approvals page for the documentation: `python -m tests.support.page_images`, run by `make images`.

The page is the real one, over approvals in memory, in Chromium.
"""

import time
from pathlib import Path
from typing import Any, Final

import structlog

from authz.approvals import ApprovalHub, Invitations
from authz.config import Config
from authz.server.http.approvals_page.build import build_page
from authz.server.http.approvals_page.sessions import Login, LoginMethod
from authz.server.http.server import WebServer, WebSettings
from authz.trust import Document, FetchRequest
from authz_client.v1 import approvals_pb2, decision_pb2
from tests.support.approving import Approvals, approval
from tests.support.browsing import chromium
from tests.support.waiting import free_port

FOLDER: Final = Path(__file__).parents[2] / "docs" / "images"
SCHEMES: Final = ("light", "dark")


def main() -> None:
    """Write the pictures."""
    port = free_port()
    url, store = f"http://localhost:{port}", _example()
    config = Config.model_validate(
        {
            "bundle": {"path": "bundle"},
            "listeners": {"approvals": {"address": f"127.0.0.1:{port}", "insecure_dev": True}},
            "approvals": {"url": url, "passkeys": {"rp_id": "localhost"}},
        }
    )
    page = build_page(
        config,
        store,
        ApprovalHub(store, _fail),
        Invitations(),
        get=_no_document,
        keys=lambda _: None,
        counted=lambda _name, _status: None,
        failed=_fail,
        log=structlog.testing.CapturingLogger(),
    )
    login = Login("corp", "dana", LoginMethod.LOGIN, int(time.time() * 1000), "Dana Klein")
    cookie, _ = page._parts.sessions.open(login)
    server = WebServer(
        WebSettings("approvals", f"127.0.0.1:{port}", None), page.application(), page.close
    )
    server.start()
    try:
        with chromium() as browser:
            for scheme in SCHEMES:
                _take(browser, url, cookie, scheme)
    finally:
        server.close()


def _take(browser: Any, url: str, cookie: str, scheme: str) -> None:
    context = browser.new_context(
        viewport={"width": 720, "height": 400},
        color_scheme=scheme,
        locale="en-GB",
        timezone_id="Europe/Berlin",
    )
    context.add_cookies([{"name": "authz-session", "value": cookie, "url": url}])
    page = context.new_page()
    for name, path, height in (("list", "/", 400), ("card", "/a/7f3a-0", 1000)):
        page.set_viewport_size({"width": 720, "height": height})
        page.goto(url + path)
        page.screenshot(path=FOLDER / f"approvals-{name}-{scheme}.png")
    page.locator("section.answer").screenshot(path=FOLDER / f"approvals-answer-{scheme}.png")
    context.close()


def _example() -> Approvals:
    """Makes two open approvals, one with a look-alike of the last recipient."""
    store = Approvals()
    transfer = approvals_pb2.Approval(
        id="7f3a-0",
        decision_id="0193a1f0-5c1e-7a52-9d8e-3f6b2c4d5e6f",
        operation="bank.transfer",
        digest=bytes(range(32)),
        kinds=["approve:finance"],
        status=approvals_pb2.APPROVAL_STATUS_PENDING,
        arguments_json=b'{"amount":4200,"currency":"EUR","iban":"DE89370400440532013100","text":"Invoice 2026-118"}',
        task="t-6f2c",
        subject="corp/alice",
        agents=["spiffe://corp.example/ns/finance/sa/payer"],
        template="pay-invoices",
        purpose="Pay approved invoices",
        effects=["export"],
        tier=decision_pb2.TIER_HIGH,
        waits_for=["approve:finance"],
        labels=["untrusted:mail"],
        reject_reasons={
            "wrong_recipient": "The recipient is wrong.",
            "wrong_amount": "The amount is wrong.",
        },
        answerable=True,
        needs_passkey=True,
    )
    passkey = {"credential_id": "AAAA", "name": "Laptop", "created_at": 1_700_000_000_000}
    store.put_passkey("corp", "dana", passkey)
    transfer.objects.add(
        role="recipient",
        pointer="/iban",
        collection="accounts",
        value_json='"DE89370400440532013100"',
        origin="introduced",
    )
    transfer.objects.add(
        role="amount", pointer="/amount", value_json="4200", currency="EUR", origin="named"
    )
    transfer.reasons.add(
        kind="approve:finance",
        policy_id="pay-large",
        reason="Transfers above 1,000 EUR need a second pair of eyes.",
        place="policies/pay.cedar:12",
    )
    transfer.last_approved.arguments_json = b'{"amount":3900,"currency":"EUR","iban":"DE89370400440532013000","text":"Invoice 2026-097"}'
    transfer.last_approved.approved_by.append("corp/dana")
    transfer.last_approved.approved_at.FromSeconds(int(time.time()) - 30 * 86_400)
    transfer.created_at.FromSeconds(int(time.time()) - 40)
    transfer.expires_at.FromSeconds(int(time.time()) + 3600)
    store.add(transfer)
    refund = approval("91bc-0")
    refund.operation, refund.agents[:] = "shop.refund", ["spiffe://corp.example/ns/shop/sa/helper"]
    refund.resource, refund.subject = "orders/10042", "corp/bob"
    store.add(refund)
    return store


def _fail(error: BaseException) -> None:
    raise error


def _no_document(request: FetchRequest) -> Document:
    raise AssertionError(request.url)


if __name__ == "__main__":
    main()
