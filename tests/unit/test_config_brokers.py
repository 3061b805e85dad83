"""Brokers and static secrets in the configuration: every refusal says what and how to fix."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from authz.config import Broker, StaticSecret
from authz.config.sections.brokers import broker_findings

GRANT: dict[str, Any] = {"privileges": ["SELECT"], "tables": ["sales.orders"]}


def broker(
    grant: dict[str, Any] | None = None,
    operation: str = "dwh.read",
    system: str = "dwh",
    **changes: Any,
) -> Broker:
    """Makes a broker with one grant."""
    systems = {system: {"operations": {operation: [grant or GRANT]}}}
    whole = {"kind": "postgresql", "dsn_file": "dsn", "systems": systems, **changes}
    return Broker.model_validate_json(json.dumps(whole))


def static_secret(header: str = "x-api-key", *systems: str) -> StaticSecret:
    """Makes a static secret."""
    whole = {"systems": systems or ("erp",), "header": header, "secret_file": "key"}
    return StaticSecret.model_validate_json(json.dumps(whole))


def said(
    brokers: dict[str, Broker] | None = None, static_secrets: dict[str, StaticSecret] | None = None
) -> list[str]:
    """Returns what is found."""
    found = broker_findings(("credentials",), brokers or {}, static_secrets or {})
    return [finding.what for finding in found]


def test_what_is_well_is_not_told() -> None:
    """Each kind of grant, and both kinds of secrets."""
    assert said({"warehouse": broker()}, {"legacy": static_secret()}) == []
    for grant in (
        {"privileges": ["SELECT", "UPDATE"], "tables": ["a.b"], "columns": ["c"]},
        {"privileges": ["DELETE", "TRUNCATE"], "tables": ["a.*"]},
        {"privileges": ["USAGE"], "sequences": ["a.b"]},
        {"privileges": ["CREATE"], "schemas": ["a"], "database": "archive"},
    ):
        assert said({"warehouse": broker(grant)}) == []


@pytest.mark.parametrize(
    ("grant", "expected"),
    [
        ({"privileges": ["SELECT"]}, "a grant is of one of `tables`, `sequences`, `schemas`."),
        (
            {"privileges": ["USAGE"], "sequences": ["a.b"], "schemas": ["a"]},
            "a grant is of one of `tables`, `sequences`, `schemas`.",
        ),
        ({"privileges": ["USAGE"], "tables": ["a.b"]}, "`USAGE` is not a privilege on tables."),
        (
            {"privileges": ["CREATE"], "sequences": ["a.b"]},
            "`CREATE` is not a privilege on sequences.",
        ),
        ({"privileges": ["SELECT"], "schemas": ["a"]}, "`SELECT` is not a privilege on schemas."),
        (
            {"privileges": ["DELETE"], "tables": ["a.b"], "columns": ["c"]},
            "`DELETE` is not a privilege on columns.",
        ),
        (
            {"privileges": ["SELECT"], "tables": ["a.*"], "columns": ["c"]},
            "`columns` are those of tables that are named one by one.",
        ),
        (
            {"privileges": ["SELECT"], "tables": ["a." + "ä" * 32]},
            f"`{'ä' * 32}` is longer than the 63 bytes that PostgreSQL keeps of a name.",
        ),
    ],
)
def test_a_grant_that_cannot_be_meant_is_told(grant: dict[str, Any], expected: str) -> None:
    """PostgreSQL would refuse it at the first lease, or grant something else."""
    assert said({"warehouse": broker(grant)}) == [expected]


@pytest.mark.parametrize(
    "grant",
    [
        {"privileges": ["SELECT"], "tables": ["orders"]},
        {"privileges": ["SELECT"], "tables": ["warehouse.sales.orders"]},
        {"privileges": ["SELECT"], "tables": ["sales.or\nders"]},
        {"privileges": ["SELECT; DROP"], "tables": ["sales.orders"]},
        {"privileges": ["select"], "tables": ["sales.orders"]},
        {"privileges": [], "tables": ["sales.orders"]},
        {"privileges": ["SELECT"], "tables": ["sales.orders"], "template": "${x}"},
    ],
)
def test_a_grant_of_another_shape_is_refused(grant: dict[str, Any]) -> None:
    """Privileges are a closed set, and names are whole."""
    with pytest.raises(ValidationError):
        broker(grant)


def test_a_system_has_its_secrets_from_one_place() -> None:
    """Two brokers, two static secrets, or one of each."""
    twice = "the secrets of `dwh` come from `one` and from `two`."
    assert said({"one": broker(), "two": broker()}) == [twice]
    assert said({"one": broker()}, {"two": static_secret("x-key", "dwh")}) == [twice]
    assert said({}, {"one": static_secret("x-a", "dwh"), "two": static_secret("x-b", "dwh")}) == [
        twice
    ]


def test_grants_stand_with_the_operation_that_they_are_for() -> None:
    """Elsewhere no lease would have them."""
    assert said({"warehouse": broker(operation="crm.read")}) == [
        "`crm.read` is not an operation of `dwh`, so no lease would ever have these grants."
    ]
    assert said({"warehouse": broker(operation="dwh")}) == ["`dwh` is not the id of an operation."]
    assert said({"warehouse": broker(system="D", operation="D.read")}) == [
        "`D` is not the id of a system.",
        "`D.read` is not the id of an operation.",
    ]


def test_names_are_names() -> None:
    """They stand in metrics and comments."""
    assert said({"Ware house": broker()}) == [
        "`Ware house` is not a valid name of a broker or static secret."
    ]
    assert said({}, {"": static_secret()}) == [
        "`` is not a valid name of a broker or static secret."
    ]


def test_what_a_lease_made_is_given_to_nobody() -> None:
    """It would run with the rights of its new owner."""
    found = broker_findings(("credentials",), {"warehouse": broker(reassign_to="keeper")}, {})
    (finding,) = found
    assert finding.what.startswith("`reassign_to` is not valid any more")
    assert "grant `INSERT` on a table" in str(finding.fix)


@pytest.mark.parametrize("privilege", ["TRIGGER", "REFERENCES"])
def test_a_lease_puts_no_code_behind_tables_that_others_write(privilege: str) -> None:
    """A trigger, or a foreign key with triggers behind it, runs in the session of whoever writes the table."""
    grant = {"privileges": ["SELECT", privilege], "tables": ["sales.orders"]}
    assert said({"warehouse": broker(grant)}) == [
        f"`{privilege}` would let a lease put code behind tables that others write."
    ]


def test_a_lease_creates_nothing_where_others_look_names_up() -> None:
    """Their queries would call its functions (CVE-2018-1058)."""
    grant = {"privileges": ["USAGE", "CREATE"], "schemas": ["public", "scratch"]}
    assert said({"warehouse": broker(grant)}) == [
        "`CREATE` on schema `public` would let a lease replace objects that other roles look up there."
    ]


def test_all_leases_together_may_hold_the_connections_of_one() -> None:
    """Otherwise none could be made."""
    assert said({"warehouse": broker(connections=2, max_connections=2)}) == []
    assert said({"warehouse": broker(connections=3, max_connections=2)}) == [
        "`max_connections` is less than the 3 `connections` of one lease, so that none can be made."
    ]


@pytest.mark.parametrize(
    "header",
    [
        "host",
        "content-length",
        "te",
        "x-envoy-retry-on",
        "authz-task",
        "x-authz-agent",
        "authz_task",
        "content_length",
    ],
)
def test_a_header_with_another_meaning_carries_no_secret(header: str) -> None:
    """It would change where the request goes, or who we say that asks."""
    assert said({}, {"legacy": static_secret(header)}) == [
        f"the header `{header}` cannot carry a secret: it has another meaning on the way."
    ]


@pytest.mark.parametrize("header", ["X-Api-Key", ":path", "x api", "x\r\ny", ""])
def test_what_is_no_header_is_refused(header: str) -> None:
    """Lower case, as HTTP/2 has them, and never a pseudo-header."""
    with pytest.raises(ValidationError):
        static_secret(header)
