"""What guards of the SDK report, on an engine that heeds it."""

from pathlib import Path

import pytest

from authz.testing import Kernel, Subject
from authz_client import Denied, Report

BUNDLE = Path(__file__).parents[1] / "cases/bundles/report"
CLERKS_START = b"""
@id("clerks-start") @reason("clerks start tasks of staff")
permit(principal in Role::"clerks", action == Action::"task:desk", resource);
"""


def test_what_guards_tell_counts_on_a_node() -> None:
    """Labels, sums and what is required to be done."""
    files = {
        str(path.relative_to(BUNDLE)): path.read_bytes()
        for path in BUNDLE.rglob("*")
        if path.is_file()
    }
    purpose = b"purpose: work at the desk"
    files["facts.yaml"] = files["facts.yaml"].replace(
        purpose, purpose + b"\n    starters: [clerks]"
    )
    files["policies/start.cedar"] = CLERKS_START
    alice = Subject("alice", claims={"groups": ["employees"]})
    with Kernel.load(files, variables={"trust_domain": "a.example"}) as kernel:
        clerk = kernel.act("spiffe://a.example/ns/support/sa/clerk", alice)
        authz = clerk.client

        @authz.guard("crm.get", report="told")
        def get(id: str, *, told: Report) -> str:  # noqa: A002 - as the catalog names it
            if not id.startswith("vip"):
                told.carries()
            return id

        @authz.guard("crm.pay", report="told")
        def pay(amount: int, *, told: Report) -> None:
            told.spent("money", amount // 2)
            if amount == 40:
                raise OSError("no route to the bank")

        mail = {"to": ["ann@corp.example"]}
        assert clerk.subject_token is not None
        with authz.task("desk", subject_token=clerk.subject_token) as task:
            steps = clerk.steps_up("mail.send", mail, labels=["vip"], task=task.id)
            assert steps.policy_ids == ("no-data-out",)
            get("1")
            clerk.permits("mail.send", mail, task=task.id)
            clerk.permits("crm.delete", {"id": "1"}, task=task.id)
            pay(60)
            pay(60)
            with pytest.raises(Denied):
                pay(41)
            for _ in range(2):
                # What failed is given back.
                with pytest.raises(OSError, match="bank"):
                    pay(40)
            get("vip-1")
            clerk.steps_up("mail.send", mail, policy="no-data-out", task=task.id)
        assert authz.reports.lost == 0
