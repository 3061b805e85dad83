"""Values that resemble other values: an attacker's mailbox beside a known one, an amount with its decimal point moved.

A value is compared with *references*: entries of recipient lists, earlier values of the task, and the last approved call. A likeness
always names its reference. Some defects, such as wrong check digits, need no reference.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from functools import lru_cache
from itertools import chain
from operator import ne
from typing import Final

from authz.approvals.characters import skeleton
from authz.approvals.inert import Kind

__all__ = [
    "FlagCode",
    "Likeness",
    "RecipientIndex",
    "Reference",
    "ReferenceIndex",
    "ValueKind",
    "amount_likenesses",
    "amount_text",
    "decimal_of",
    "is_address",
    "is_currency",
    "is_iban",
    "kind_of",
    "likenesses",
    "same_value",
]

MAX_NEAR: Final = 16
"""References that `RecipientIndex.near` returns for one value."""
_CACHED: Final = 4_096
"""Values whose normal forms are cached, because each value is compared with many others."""
_MAX_LENGTH: Final = 320
"""Largest number of characters of a value that is compared. Longer values are not names."""
_NEAR_LENGTH: Final = 5
"""Shorter host names are not compared, because they are near to too many others."""
_LONG_NAME: Final = 63
"""Largest number of characters of a label of a host name (RFC 1035)."""
_FOLDERS: Final = 16
"""Number of folders of a path whose neighbours are searched in recipient lists."""
_ID_DIGITS: Final = 3
"""Ids with fewer digits are not compared, because they are near to too many others."""

_IBAN: Final = re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}")
# Lengths by country (SWIFT IBAN registry, release 99).
_IBAN_LENGTHS: Final[Mapping[str, int]] = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE BI",
        18: "DK FI FK FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BY DJ FR GR IT MC MR SM",
        28: "AL AZ CY DO GT HN HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}
_HOST: Final = re.compile(r"[^\s/@:]+(\.[^\s/@:]+)+", re.UNICODE)
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#\\]*)(.*)", re.DOTALL)
_CURRENCY: Final = re.compile(r"[A-Z]{3}")
_AMOUNT: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_SEPARATED_AMOUNT: Final = re.compile(r"-?[0-9]{1,3}(?:[.,' ][0-9]{3})*(?:[.,][0-9]+)?")
_TRAVERSAL: Final = re.compile(r"(?:^|[/\\])\.\.(?:[/\\]|$)")
_ENCODED: Final = re.compile(r"%(?:2e|2f|5c|25|00)", re.IGNORECASE)
# Mailbox names of most organisations. Two organisations with the same one are not suspicious.
_OFFICES: Final = frozenset(
    [
        "abuse",
        "accounting",
        "accounts",
        "admin",
        "billing",
        "booking",
        "bookings",
        "careers",
        "contact",
        "customer",
        "desk",
        "events",
        "finance",
        "hello",
        "help",
        "hr",
        "info",
        "it",
        "jobs",
        "legal",
        "mail",
        "marketing",
        "news",
        "newsletter",
        "no-reply",
        "noreply",
        "office",
        "orders",
        "payments",
        "postmaster",
        "press",
        "privacy",
        "reception",
        "reservations",
        "sales",
        "security",
        "service",
        "shop",
        "staff",
        "support",
        "team",
        "tickets",
        "webmaster",
    ]
)


class FlagCode(StrEnum):
    """Reason why a card warns."""

    HIDDEN = "hidden_characters"
    MIXED = "mixed_scripts"
    CONFUSABLE = "confusable_characters"
    PADDING = "padding"
    MARKS = "piled_marks"
    LOOKS_LIKE = "looks_like"
    NEAR = "nearly_the_same"
    SWAPPED = "swapped_characters"
    OTHER_DOMAIN = "other_domain"
    OTHER_TLD = "other_top_level_domain"
    FOREIGN_HOST = "known_host_in_front"
    BORROWED_NAME = "borrowed_name"
    ENCODED_HOST = "encoded_host"
    USER_IN_URL = "name_before_host"
    CHECK_DIGITS = "wrong_check_digits"
    PATH = "path_leads_elsewhere"
    FOLDER = "neighbour_folder"
    OTHER_ACCOUNT = "other_account_same_name"
    AMOUNT_SCALE = "amount_times_ten"
    AMOUNT_FORM = "ambiguous_amount"
    CURRENCY = "other_currency"
    ODD_DESTINATION = "unlike_the_others"


class ValueKind(StrEnum):
    """Kind of a value, found by its form."""

    MAILBOX = "mailbox"
    URL = "url"
    HOST = "host"
    IBAN = "iban"
    PATH = "path"
    NAME = "name"

    @property
    def strictness(self) -> Kind:
        """How strictly the characters of such a value are judged."""
        return Kind.NAME if self in (ValueKind.PATH, ValueKind.NAME) else Kind.ADDRESS


@dataclass(frozen=True, slots=True)
class Reference:
    """A known value."""

    value: str
    source: str
    """Source of the value, in words, for example `recipient list payees`."""
    is_list: bool = False
    """True for an entry of a recipient list."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """A reason to look twice at a value."""

    code: FlagCode
    text: str
    """Sentence. It ends with a colon if a reference follows."""
    reference: Reference | None = None


@lru_cache(_CACHED)
def kind_of(value: str) -> ValueKind:
    """Return the kind of a value."""
    iban = _compact(value)
    if _IBAN.fullmatch(iban) and iban[:2] in _IBAN_LENGTHS:
        kind = ValueKind.IBAN
    elif "://" in value:
        kind = ValueKind.URL
    elif "@" in value and not value.startswith(("/", ".", "\\", "@")):
        kind = ValueKind.MAILBOX
    elif "/" in value or "\\" in value or value.startswith("."):
        kind = ValueKind.PATH
    elif _HOST.fullmatch(value) and "." in skeleton(value) and re.search(r"[^\W\d]{2,}$", value):
        kind = ValueKind.HOST
    else:
        kind = ValueKind.NAME
    return kind


def same_value(one: str, other: str) -> bool:
    """Return whether two values are the same mailbox, host, account or name."""
    if len(one) > _MAX_LENGTH or len(other) > _MAX_LENGTH:
        return one == other
    return one == other or _normal(one) == _normal(other)


def is_address(text: str) -> bool:
    """Return whether a text has the form of a mailbox, a URL or an IBAN of its country's length."""
    if len(text) > _MAX_LENGTH:
        return False
    kind = kind_of(text)
    if kind is ValueKind.IBAN:
        return is_iban(text)
    is_mailbox = kind is ValueKind.MAILBOX and not re.search(r"\s", text)
    return is_mailbox or (kind is ValueKind.URL and _URL.fullmatch(text) is not None)


def is_iban(text: str) -> bool:
    """Return whether a text has the form of an IBAN and the length of its country's; the check digits may be wrong."""
    if len(text) > _MAX_LENGTH:
        return False
    iban = _compact(text)
    return kind_of(text) is ValueKind.IBAN and len(iban) == _IBAN_LENGTHS.get(iban[:2])


def is_currency(text: str) -> bool:
    """Return whether a text has the form of a currency's code (ISO 4217)."""
    return _CURRENCY.fullmatch(text) is not None


def likenesses(
    value: str,
    references: Iterable[Reference],
    *,
    is_chosen: bool = False,
    kind: ValueKind | None = None,
) -> tuple[Likeness, ...]:
    """Return the reasons to look twice at a destination, resource, id or path.

    Args:
        value: The value.
        references: Known values.
        is_chosen: The user or the organisation chose exactly this value. Then only values that look the same count.
        kind: Kind of the value. Default: the kind that `kind_of` finds.
    """
    if not value or len(value) > _MAX_LENGTH:
        return ()
    kind = kind or kind_of(value)
    found = list(_own_defects(value, kind))
    known = [one for one in references if one.value and len(one.value) <= _MAX_LENGTH]
    if not any(same_value(value, one.value) for one in known):
        found += _against(value, kind, known, is_chosen=is_chosen)
    return tuple(dict.fromkeys(found))


def amount_likenesses(
    amount: str, currency: str, before: Sequence[Reference], *, is_same_receiver: bool
) -> tuple[Likeness, ...]:
    """Return the reasons to look twice at an amount.

    Args:
        amount: The amount as the call writes it.
        currency: Currency of the amount. Empty if the call has none.
        before: Amounts of earlier calls, as those calls write them.
        is_same_receiver: Whether the earlier calls have the same receiver.
    """
    number = decimal_of(amount)
    if number is None:
        if _SEPARATED_AMOUNT.fullmatch(amount.strip()):
            text = f"`{amount.strip()}` is another number in other countries: points and commas divide it."
            return (Likeness(FlagCode.AMOUNT_FORM, text),)
        return ()
    return tuple(
        Likeness(FlagCode.AMOUNT_SCALE, f"{times}{' in ' + currency if currency else ''}:", one)
        for one in before
        if (times := _times(number, decimal_of(one.value), is_same_receiver=is_same_receiver))
    )


def _times(number: Decimal, earlier: Decimal | None, *, is_same_receiver: bool) -> str:
    if earlier is None or not number or not earlier or number == earlier:
        return ""
    has_digits = len(_significant(number)) > 1
    if _significant(number) != _significant(earlier) or not (is_same_receiver or has_digits):
        return ""
    by = number / earlier
    if by > 1:
        return f"The same digits, {by:f} times as much as"
    return f"The same digits, a {1 / by:f}th of"


def _significant(number: Decimal) -> str:
    return "".join(map(str, number.normalize().as_tuple().digits))


def decimal_of(text: str) -> Decimal | None:
    """Return the number that a text writes without exponent and separators, or `None` for other texts."""
    try:
        return Decimal(text) if _AMOUNT.fullmatch(text.strip()) else None
    except InvalidOperation:
        return None


def amount_text(number: Decimal, scale: int) -> str:
    """Return an amount with all its digits, in groups of three that blanks divide.

    Args:
        number: The amount as a call writes it.
        scale: Divisor of the amount, a power of ten.
    """
    places = len(str(scale)) - 1
    sign, digits, exponent = number.as_tuple()
    # The decimal point is moved in the text, because a division rounds to the precision of the context.
    moved = Decimal((0, digits, int(exponent) - places))
    whole, _, fraction = f"{moved:f}".partition(".")
    first = len(whole) % 3
    groups = [whole[place : place + 3] for place in range(first, len(whole), 3)]
    text = " ".join(filter(None, [whole[:first], *groups]))
    text = f"{text}.{fraction}" if fraction else text
    return f"-{text}" if sign else text


def _compact(value: str) -> str:
    return value.replace(" ", "").upper() if value[:2].isalpha() else value


@lru_cache(_CACHED)
def _normal(value: str) -> str:
    kind = kind_of(value)
    if kind is ValueKind.IBAN:
        return _compact(value)
    if kind in (ValueKind.MAILBOX, ValueKind.HOST):
        return value.casefold().rstrip(".")
    # A system may give the paths of one folder with and without the first slash.
    return value.removeprefix("/") if kind is ValueKind.PATH else value


@lru_cache(_CACHED)
def _look(value: str) -> str:
    """Return a key that values with the same look in most fonts share."""
    looks = skeleton(_normal(value).casefold()).casefold()
    return looks.replace("vv", "w").replace("cl", "d").replace("o0", "oo")


# Defects of a value alone.


def _own_defects(value: str, kind: ValueKind) -> Iterator[Likeness]:
    if kind is ValueKind.IBAN and not _has_check_digits(_compact(value)):
        yield Likeness(
            FlagCode.CHECK_DIGITS, "The check digits or the length of this IBAN are wrong."
        )
    if kind in (ValueKind.PATH, ValueKind.URL, ValueKind.NAME):
        yield from _path_defects(value)
    host = _host_of(value, kind)
    for label in host.split("."):
        if label.casefold().startswith("xn--"):
            decoded = _decoded(label)
            yield Likeness(
                FlagCode.ENCODED_HOST,
                f"The label `{label}` of the host name stands for:",
                Reference(decoded, "encoded host name"),
            )
    url = _URL.match(value) if kind is ValueKind.URL else None
    # A key in front of the host, as in a DSN, does not look like a host.
    if url and "." in url[2].rpartition("@")[0]:
        yield Likeness(
            FlagCode.USER_IN_URL,
            "The text before `@` only looks like a host. The host of this URL is:",
            Reference(host, "host of the URL"),
        )
    elif kind is ValueKind.MAILBOX and value.count("@") > 1:
        yield Likeness(
            FlagCode.USER_IN_URL,
            "This mailbox has several `@`. Its host is:",
            Reference(host, "host of the mailbox"),
        )


def _has_check_digits(iban: str) -> bool:
    """Return whether length and check digits of an IBAN are valid (ISO 7064, mod 97-10)."""
    moved = iban[4:] + iban[:4]
    if len(iban) != _IBAN_LENGTHS.get(iban[:2]):
        return False
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def _path_defects(value: str) -> Iterator[Likeness]:
    if _TRAVERSAL.search(value):
        yield Likeness(
            FlagCode.PATH, "A part `..` leads out of the folder that the path begins with."
        )
    if encoded := _ENCODED.search(value):
        text = f"`{encoded[0]}` is an encoded character; a server may read another path."
        yield Likeness(FlagCode.PATH, text)
    _, _, path = value.partition("://")
    if "//" in (path or value) or "\\" in value or "/./" in value:
        yield Likeness(FlagCode.PATH, "Parts of the path are empty, `.` or divided by `\\`.")


def _decoded(label: str) -> str:
    try:
        return label[4:].casefold().encode("ascii").decode("punycode")
    except UnicodeError:
        return "no readable text"


# Comparison with references.


def _against(
    value: str, kind: ValueKind, references: Sequence[Reference], *, is_chosen: bool
) -> Iterator[Likeness]:
    look = _look(value)
    for one in references:
        if _look(one.value) == look:
            yield Likeness(FlagCode.LOOKS_LIKE, "Looks the same as, but is not:", one)
            return
    if is_chosen:
        return
    alike = [one for one in references if _is_comparable(kind_of(one.value), kind)]
    match kind:
        case ValueKind.MAILBOX | ValueKind.HOST | ValueKind.URL:
            yield from _host_likeness(value, kind, alike)
        case ValueKind.IBAN:
            yield from _iban_likeness(_compact(value), alike)
        case _:
            yield from _name_likeness(value, alike)


def _is_comparable(known: ValueKind, kind: ValueKind) -> bool:
    """Return whether values of two kinds can be compared."""
    addresses = (ValueKind.MAILBOX, ValueKind.HOST, ValueKind.URL)
    if kind in addresses:
        return known in addresses
    # An id such as `report.pdf` has the form of a host.
    names = (ValueKind.PATH, ValueKind.NAME, ValueKind.HOST)
    return known is kind if kind is ValueKind.IBAN else known in names


@lru_cache(_CACHED)
def _host_of(value: str, kind: ValueKind) -> str:
    if kind is ValueKind.MAILBOX:
        host = value.rpartition("@")[2]
    elif kind is ValueKind.URL and (url := _URL.match(value)):
        host = re.sub(r":[0-9]*$", "", url[2].rpartition("@")[2])
    elif kind is ValueKind.HOST:
        host = value
    else:
        host = ""
    return host.casefold().strip(".")


def _host_likeness(
    value: str, kind: ValueKind, references: Sequence[Reference]
) -> Iterator[Likeness]:
    host = _host_of(value, kind)
    hosts = [(_host_of(one.value, kind_of(one.value)), one) for one in references]
    if not host or any(_tail(host) == _tail(known) for known, _ in hosts if known):
        return  # a host of an organisation that is known
    for check in (_foreign_host, _look_of_host, _other_tld, _near_host, _borrowed_name):
        for known, one in hosts:
            if known and (likeness := check(host, known, one)):
                yield likeness
                return
    if kind is ValueKind.MAILBOX:
        name = value.rpartition("@")[0].casefold()
        for _, one in hosts:
            if name and name not in _OFFICES and one.value.rpartition("@")[0].casefold() == name:
                text = "The same name at another organisation as:"
                yield Likeness(FlagCode.OTHER_DOMAIN, text, one)
                return


def _labels(host: str) -> list[str]:
    return host.split(".")


@lru_cache(_CACHED)
def _tail(host: str) -> str:
    """Return the part of a host name that its owner registered, estimated from its form."""
    labels = _labels(host)
    # Registries with a second level, such as `co.uk`.
    has_second_level = len(labels) > 2 and len(labels[-1]) == 2 and len(labels[-2]) <= 3
    return ".".join(labels[-3:] if has_second_level else labels[-2:])


def _base(host: str) -> tuple[str, str]:
    """Return the registered name and the top-level domain of a host name."""
    name, _, rest = _tail(host).partition(".")
    return name, rest


def _foreign_host(host: str, known: str, one: Reference) -> Likeness | None:
    labels, wanted = _labels(host), _labels(_tail(known))
    places = range(len(labels) - len(wanted))
    joined = host.replace("-", ".")
    in_front = any(labels[place : place + len(wanted)] == wanted for place in places)
    if in_front or (f"{_tail(known)}." in joined and not joined.endswith(_tail(known))):
        text = f"Begins like a known host, but belongs to `{_tail(host)}`:"
        return Likeness(FlagCode.FOREIGN_HOST, text, one)
    return None


def _look_of_host(host: str, known: str, one: Reference) -> Likeness | None:
    if _look(_tail(host)) == _look(_tail(known)):
        return Likeness(
            FlagCode.LOOKS_LIKE, "The host looks the same as, but is not, that of:", one
        )
    return None


def _other_tld(host: str, known: str, one: Reference) -> Likeness | None:
    name, rest = _base(host)
    known_name, known_rest = _base(known)
    if rest != known_rest and len(name) >= 3 and _look(name) == _look(known_name):
        text = f"`.{rest}` instead of `.{known_rest}`:"
        return Likeness(FlagCode.OTHER_TLD, text, one)
    return None


def _near_host(host: str, known: str, one: Reference) -> Likeness | None:
    name, rest = _base(host)
    known_name, known_rest = _base(known)
    if rest != known_rest or min(len(name), len(known_name)) < _NEAR_LENGTH:
        return None
    if _distance(name, known_name, 1) == 1:
        text = "The host differs in one character from that of:"
        return Likeness(FlagCode.NEAR, text, one)
    return None


def _borrowed_name(host: str, known: str, one: Reference) -> Likeness | None:
    name, _ = _base(host)
    known_name, _ = _base(known)
    if len(known_name) >= _NEAR_LENGTH and known_name in re.split(r"[-_]", name):
        text = f"Has the name of a known host in it, but belongs to `{_tail(host)}`:"
        return Likeness(FlagCode.BORROWED_NAME, text, one)
    return None


def _iban_likeness(iban: str, references: Sequence[Reference]) -> Iterator[Likeness]:
    for one in references:
        # The check digits follow from the account, so a changed digit of the account changes them too.
        account, known = _account(iban), _account(_compact(one.value))
        if len(account) == len(known) and sum(map(ne, account, known)) <= 2:
            yield Likeness(FlagCode.NEAR, "Differs in one or two characters from:", one)
            return


def _account(iban: str) -> str:
    """Return an IBAN without its check digits."""
    return iban[:2] + iban[4:]


def _name_likeness(value: str, references: Sequence[Reference]) -> Iterator[Likeness]:
    for one in references:
        if _is_swapped(value, one.value):
            yield Likeness(FlagCode.SWAPPED, "Two characters are swapped, compared with:", one)
            return
    for one in references:
        if _is_neighbour(value, one.value):
            yield Likeness(FlagCode.FOLDER, "Lies in another folder than:", one)
            return


def _is_swapped(value: str, known: str) -> bool:
    if len(value) != len(known) or sum(map(str.isdigit, value)) < _ID_DIGITS:
        return False
    places = [
        place for place, pair in enumerate(zip(value, known, strict=True)) if len({*pair}) > 1
    ]
    if len(places) != 2 or places[1] != places[0] + 1:
        return False
    first, second = places
    return value[first] == known[second] and value[second] == known[first]


def _is_neighbour(value: str, known: str) -> bool:
    """Return whether two paths differ in one folder, and the name of one folder begins with the name of the other."""
    parts, known_parts = _normal(value).split("/"), _normal(known).split("/")
    if len(parts) != len(known_parts) or len(parts) < 2:
        return False
    pairs = [(one, other) for one, other in zip(parts, known_parts, strict=True) if one != other]
    if len(pairs) != 1 or pairs[0] == (parts[-1], known_parts[-1]):
        return False
    one, other = pairs[0]
    return bool(other) and one.startswith(other)


def _distance(one: str, other: str, at_most: int) -> int:
    """Return the number of added, missing, changed or swapped characters, or `at_most` + 1 if there are more."""
    if abs(len(one) - len(other)) > at_most:
        return at_most + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for place, character in enumerate(one, 1):
        previous, row = row, [place]
        for column, wanted in enumerate(other, 1):
            cost = min(
                previous[column] + 1,
                row[column - 1] + 1,
                previous[column - 1] + (character != wanted),
            )
            is_swap = (
                place > 1
                and column > 1
                and character == other[column - 2]
                and one[place - 2] == wanted
            )
            row.append(min(cost, before[column - 2] + 1) if is_swap else cost)
        if min(row) > at_most:
            return at_most + 1
        before = previous
    return row[-1]


class ReferenceIndex:
    """Index of references that finds those near a value without comparing all of them.

    Args:
        references: The references. The index keeps only a few references for each key, for example for the mailboxes of one host.
    """

    def __init__(self, references: Iterable[Reference]) -> None:
        self._by_key: defaultdict[str, list[Reference]] = defaultdict(list)
        hosts: set[str] = set()
        for reference in references:
            if not reference.value or len(reference.value) > _MAX_LENGTH:
                continue
            host = _host_of(reference.value, kind_of(reference.value))
            # One reference of a host suffices to find other hosts that resemble it.
            keys = set(_own_keys(reference.value)) | (
                set() if host in hosts else set(_host_keys(host))
            )
            hosts.add(host)
            for key in keys:
                if len(self._by_key[key]) < MAX_NEAR:
                    self._by_key[key].append(reference)

    def candidates(self, value: str) -> tuple[Reference, ...]:
        """Return all references that `likenesses` needs for a value, and possibly more."""
        if not value or len(value) > _MAX_LENGTH:
            return ()
        found = (self._by_key.get(key, ()) for key in sorted(set(_keys(value))))
        return tuple(dict.fromkeys(chain.from_iterable(found)))


class RecipientIndex:
    """Entries of recipient lists.

    Args:
        lists: Entries of each list, by its name.
    """

    def __init__(self, lists: Mapping[str, Iterable[str]]) -> None:
        self._index = ReferenceIndex(
            Reference(entry, f"recipient list {name}", is_list=True)
            for name, entries in sorted(lists.items())
            for entry in sorted(set(entries))
        )

    def near(self, values: Iterable[str]) -> tuple[Reference, ...]:
        """Return entries that are equal to a value or resemble it, at most `MAX_NEAR` for each value.

        Args:
            values: Destinations and other values of a call.
        """
        found: dict[Reference, None] = {}
        for value in values:
            near = [one for one in self._index.candidates(value) if _is_near(value, one)]
            found |= dict.fromkeys(near[:MAX_NEAR])
        return tuple(found)


def _is_near(value: str, one: Reference) -> bool:
    host, known = _host_of(value, kind_of(value)), _host_of(one.value, kind_of(one.value))
    # A known host is not compared with other hosts.
    is_known = bool(host) and bool(known) and _tail(host) == _tail(known)
    return (
        is_known
        or same_value(value, one.value)
        or any(likeness.reference == one for likeness in likenesses(value, (one,)))
    )


def _keys(value: str) -> Iterator[str]:
    """Yield keys. Two values that resemble each other share at least one key."""
    yield from _own_keys(value)
    yield from _host_keys(_host_of(value, kind_of(value)))


def _own_keys(value: str) -> Iterator[str]:
    kind = kind_of(value)
    yield f"same {_normal(value)}"
    yield f"look {_look(value)}"
    if kind is ValueKind.IBAN:
        # If two characters differ, at least one of four parts is unchanged.
        account = _account(_compact(value))
        size = len(account) // 4 + 1
        for place in range(4):
            yield f"iban {place} {account[place * size : (place + 1) * size]}"
    elif kind is ValueKind.MAILBOX:
        local = value.rpartition("@")[0].casefold()
        if local not in _OFFICES:
            yield f"local {local}"
    elif kind in (ValueKind.PATH, ValueKind.NAME):
        yield f"characters {''.join(sorted(value))}"
        parts = _normal(value).split("/")
        for place in range(min(len(parts) - 1, _FOLDERS)):
            yield f"folder {place} {'/'.join(parts[:place])}//{'/'.join(parts[place + 1 :])}"


def _host_keys(host: str) -> Iterator[str]:
    if not host:
        return
    name, _ = _base(host)
    yield f"tail {_look(_tail(host))}"
    yield f"name {_look(name)}"
    for part in re.split(r"[-_.]", host):
        if len(part) >= _NEAR_LENGTH:
            yield f"part {part}"
    yield from _shortened(name)


def _shortened(name: str) -> Iterator[str]:
    """Yield each text that a name without one character gives. Two names that differ in one character share such a text."""
    if not _NEAR_LENGTH <= len(name) <= _LONG_NAME:
        return
    yield f"near {name}"
    for place in range(len(name)):
        yield f"near {name[:place]}{name[place + 1 :]}"
