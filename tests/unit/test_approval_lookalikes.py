"""Values that resemble others: which are flagged, against what, and which ordinary pairs are not."""

# ruff: noqa: RUF001 - letters that look like others are the subject

from decimal import Decimal

import pytest

from authz.approvals.lookalikes import (
    FlagCode,
    RecipientIndex,
    Reference,
    ValueKind,
    amount_likenesses,
    amount_text,
    is_address,
    kind_of,
    likenesses,
    same_value,
)

IBAN = "DE25501027675387610652"
RUTH = "ruth@zahlwerk.example"


def codes(value: str, *known: str, is_chosen: bool = False) -> list[FlagCode]:
    """Return the codes of a value's likenesses to known values."""
    references = [Reference(one, "recipient list people") for one in known]
    found = likenesses(value, references, is_chosen=is_chosen)
    indexed = likenesses(
        value, RecipientIndex({"people": known}).near([value]), is_chosen=is_chosen
    )
    assert [one.code for one in found] == [one.code for one in indexed]
    return [one.code for one in found]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (IBAN, ValueKind.IBAN),
        ("DE25 5010 2767 5387 6106 52", ValueKind.IBAN),
        ("XX25501027675387610652", ValueKind.NAME),
        (RUTH, ValueKind.MAILBOX),
        ("@kai", ValueKind.NAME),
        ("https://corp.example/a@b", ValueKind.URL),
        ("corp.example", ValueKind.HOST),
        ("/bills/glazier.md", ValueKind.PATH),
        ("bills/glazier.md", ValueKind.PATH),
        ("o-4711", ValueKind.NAME),
        ("1.25", ValueKind.NAME),
    ],
)
def test_the_form_of_a_value_tells_its_kind(value: str, kind: ValueKind) -> None:
    """Destinations come without their type."""
    assert kind_of(value) is kind


@pytest.mark.parametrize(
    ("value", "known", "code"),
    [
        ("ruth@zahlwerk.test", RUTH, FlagCode.OTHER_TLD),
        ("ruth@zahlwerk.example.evil.test", RUTH, FlagCode.FOREIGN_HOST),
        ("ruth@zahlwerk-example.evil.test", RUTH, FlagCode.FOREIGN_HOST),
        ("paul@zahlwerk-billing.example", RUTH, FlagCode.BORROWED_NAME),
        ("paul@zahlwrek.example", RUTH, FlagCode.NEAR),
        ("paul@zahlwekr.example", RUTH, FlagCode.NEAR),
        ("ruth@harvest.test", RUTH, FlagCode.OTHER_DOMAIN),
        ("ruth@zahlvverk.example", RUTH, FlagCode.LOOKS_LIKE),
        ("rutһ@zahlwerk.example", RUTH, FlagCode.LOOKS_LIKE),
        ("pay@rnaple.example", "pay@maple.example", FlagCode.LOOKS_LIKE),
        ("paul@rnaple.example", "pay@maple.example", FlagCode.LOOKS_LIKE),
        (
            "https://maple.example.evil.test/login",
            "https://maple.example/login",
            FlagCode.FOREIGN_HOST,
        ),
        ("maple.test", "maple.example", FlagCode.OTHER_TLD),
        ("O-4711", "0-4711", FlagCode.LOOKS_LIKE),
        ("invoice-4517", "invoice-4571", FlagCode.SWAPPED),
        ("/bills-old/glazier.md", "/bills/glazier.md", FlagCode.FOLDER),
    ],
)
def test_a_value_that_resembles_a_known_one_is_flagged(
    value: str, known: str, code: FlagCode
) -> None:
    """The reference is the known value."""
    assert codes(value, known) == [code]
    (likeness,) = likenesses(value, [Reference(known, "a list")])
    assert likeness.reference is not None
    assert likeness.reference.value == known


@pytest.mark.parametrize(
    ("value", "known"),
    [
        (RUTH, RUTH),
        ("Ruth@Zahlwerk.example", RUTH),
        ("paul@zahlwerk.example", RUTH),
        ("paul@mail.zahlwerk.example", RUTH),
        ("info@harvest.test", "info@zahlwerk.example"),
        ("kai@harvest.test", RUTH),
        ("DE25 5010 2767 5387 6106 52", IBAN),
        ("DE44929366487946905675", IBAN),
        ("o-12", "o-21"),
        ("invoice-4518", "invoice-4517"),
        ("/bills/glazier.md", "/bills/painter.md"),
        ("bills/glazier.md", "/bills/glazier.md"),
        ("a.b.co.uk", "c.d.co.uk"),
        ("https://key@errors.example/1", "errors.example"),
    ],
)
def test_ordinary_neighbours_are_not_flagged(value: str, known: str) -> None:
    """A warning on each second mailbox of an organisation would be clicked away."""
    assert codes(value, known) == []


def test_an_account_that_differs_in_a_digit_is_flagged_with_right_check_digits_too() -> None:
    """Who changes the account also changes the check digits."""
    assert codes("DE25501027675387610653") == [FlagCode.CHECK_DIGITS]
    assert codes("DE25501027675387610653", IBAN) == [FlagCode.CHECK_DIGITS, FlagCode.NEAR]
    assert codes("DE68501027675387640652", IBAN)[-1] is FlagCode.NEAR


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("DE2550102767538761065", FlagCode.CHECK_DIGITS),
        ("mail@xn--80ak6aa92e.example", FlagCode.ENCODED_HOST),
        ("https://corp.example@evil.test/", FlagCode.USER_IN_URL),
        ("a@b@evil.test", FlagCode.USER_IN_URL),
        ("/bills/../staff/payroll.md", FlagCode.PATH),
        ("/bills/%2e%2e/staff", FlagCode.PATH),
        ("bills\\staff", FlagCode.PATH),
        ("https://corp.example/a//b", FlagCode.PATH),
    ],
)
def test_some_defects_need_no_reference(value: str, code: FlagCode) -> None:
    """They are seen in the value alone."""
    assert codes(value) == [code]


def test_a_chosen_value_is_flagged_only_if_it_looks_the_same() -> None:
    """The user who names a mailbox at another domain means it; no user means a Cyrillic letter."""
    assert codes("ruth@harvest.test", RUTH, is_chosen=True) == []
    assert codes("ruth@zahlvverk.example", RUTH, is_chosen=True) == [FlagCode.LOOKS_LIKE]


@pytest.mark.parametrize(
    ("amount", "before", "is_same_receiver", "is_flagged"),
    [
        ("1260000", "126000", False, True),
        ("12600", "126000", False, True),
        ("12.60", "1260", False, True),
        ("1000", "100", False, False),
        ("1000", "100", True, True),
        ("126000", "126000", True, False),
        ("252000", "126000", True, False),
        ("0", "100", True, False),
        ("126000", "no number", True, False),
    ],
)
def test_an_amount_with_its_decimal_point_moved_is_flagged(
    amount: str, before: str, *, is_same_receiver: bool, is_flagged: bool
) -> None:
    """Round amounts to other receivers are ordinary."""
    known = [Reference(before, "the last approved call")]
    found = amount_likenesses(amount, "EUR", known, is_same_receiver=is_same_receiver)
    assert [one.code for one in found] == [FlagCode.AMOUNT_SCALE] * is_flagged


@pytest.mark.parametrize(
    ("amount", "is_flagged"), [("1.260,00", True), ("1,260", True), ("ten", False)]
)
def test_an_amount_that_countries_read_differently_is_flagged(
    amount: str, *, is_flagged: bool
) -> None:
    """A point is a comma elsewhere."""
    found = amount_likenesses(amount, "", [], is_same_receiver=False)
    assert [one.code for one in found] == [FlagCode.AMOUNT_FORM] * is_flagged


@pytest.mark.parametrize(
    ("number", "scale", "text"),
    [
        ("126000", 100, "1 260.00"),
        ("126000", 1, "126 000"),
        ("1260.5", 100, "12.605"),
        ("5", 100, "0.05"),
        ("-5", 100, "-0.05"),
        ("-126000", 100, "-1 260.00"),
        ("0", 100, "0.00"),
        ("1.50", 1, "1.50"),
        ("9" * 6000, 1, " ".join(["999"] * 2000)),
        ("9" * 40, 100, " ".join(["99", *["999"] * 12]) + ".99"),
    ],
)
def test_an_amount_keeps_every_digit(number: str, scale: int, text: str) -> None:
    """A rounded amount is another amount."""
    assert amount_text(Decimal(number), scale) == text


def test_addresses_in_undeclared_arguments() -> None:
    """Only forms that nothing else has."""
    assert is_address(IBAN)
    assert is_address(RUTH)
    assert is_address("https://corp.example/a")
    assert not is_address("report.pdf")
    assert not is_address("ask ruth@zahlwerk.example about it")
    assert not is_address("DE12ABC")
    assert same_value("RUTH@zahlwerk.example", RUTH)
    assert not same_value("/a/b", "/a/B")
