"""Reads subject identifiers (RFC 9493, and complex subjects of SSF 1.0 §3), and finds the subject of an issuer of the configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from authz.server.http.shared_signals.refusals import SetError, SetErrorCode

__all__ = ["EventSubject", "SubjectRules", "find_subjects"]

_MAX_TEXT: Final = 255
_MAX_ALIASES: Final = 8
_MEMBERS: Final[Mapping[str, frozenset[str]]] = {
    "account": frozenset({"uri"}),
    "did": frozenset({"url"}),
    "email": frozenset({"email"}),
    "iss_sub": frozenset({"iss", "sub"}),
    "jwt_id": frozenset({"iss", "jti"}),
    "opaque": frozenset({"id"}),
    "phone_number": frozenset({"phone_number"}),
    "saml_assertion_id": frozenset({"issuer", "assertion_id"}),
    "uri": frozenset({"uri"}),
}
"""Members of each format, beside `format`: all of them, and no others (RFC 9493 §3)."""


@dataclass(frozen=True, slots=True)
class SubjectRules:
    """Subjects of the events that a transmitter may send."""

    issuers: Mapping[str, str]
    """Alias of each issuer, by its `iss`."""
    email_claim: str | None = None
    """Claim with the subject's email address. `None`: no subject is known by it."""


@dataclass(frozen=True, slots=True)
class EventSubject:
    """A subject of an issuer of the configuration."""

    issuer: str
    """Alias of the issuer."""
    value: str
    """`sub`, or the value of `claim`."""
    claim: str | None = None
    """Claim that holds the value. `None`: `sub`."""


def find_subjects(identifier: Mapping[str, Any], rules: SubjectRules) -> tuple[EventSubject, ...]:
    """Return the subjects that an identifier names: none if it names nobody of the configuration.

    An email address names a subject at each issuer. Of a complex subject, `user` counts: other members, such as `session`, would only
    limit the event, and Authz does not know them.

    Raises:
        SetError: The identifier does not have the form of its format.
    """
    if identifier.get("format") == "complex":
        for name, member in identifier.items():
            if name != "format":
                _check_member(name, member)
        if len(identifier) == 1:
            raise _invalid("a complex `sub_id` has no members")
        user = identifier.get("user")
        return () if user is None else _find_simple(user, rules)
    return _find_simple(identifier, rules)


def _check_member(name: str, member: object) -> None:
    if not isinstance(member, dict):
        raise _invalid(f"`{name[:32]}` of the complex `sub_id` is not a subject identifier")
    if member.get("format") == "complex":
        raise _invalid("a complex `sub_id` has a complex member")
    _check_form(member)


def _find_simple(
    identifier: Mapping[str, Any], rules: SubjectRules, *, may_alias: bool = True
) -> tuple[EventSubject, ...]:
    """Return the subjects that a simple identifier names, or one of its aliases."""
    _check_form(identifier)
    match identifier["format"]:
        case "iss_sub":
            alias = rules.issuers.get(identifier["iss"])
            return () if alias is None else (EventSubject(alias, identifier["sub"]),)
        case "email" if rules.email_claim is not None:
            email = identifier["email"]
            return tuple(
                EventSubject(alias, email, rules.email_claim) for alias in rules.issuers.values()
            )
        case "aliases" if may_alias:
            named = [_find_simple(one, rules, may_alias=False) for one in identifier["identifiers"]]
            return tuple(dict.fromkeys(subject for found in named for subject in found))
        case _:
            return ()


def _check_form(identifier: Mapping[str, Any]) -> None:
    name = identifier.get("format")
    if not isinstance(name, str) or not name:
        raise _invalid("a subject identifier has no `format` (RFC 9493 §3)")
    if name == "aliases":
        _check_aliases(identifier)
        return
    members = _MEMBERS.get(name)
    if members is None:
        # A format of another registry: nobody here is known by it.
        return
    if identifier.keys() - {"format"} != members:
        raise _invalid(
            f"a subject identifier of the format `{name}` has other members than its format (RFC 9493 §3)"
        )
    for member in members:
        text = identifier[member]
        if (
            not isinstance(text, str)
            or not 0 < len(text.encode()) <= _MAX_TEXT
            or not text.isprintable()
        ):
            raise _invalid(f"`{member}` of a subject identifier is empty, too long, or no text")


def _check_aliases(identifier: Mapping[str, Any]) -> None:
    listed = identifier.get("identifiers")
    if identifier.keys() != {"format", "identifiers"} or not isinstance(listed, list):
        raise _invalid("a subject identifier of the format `aliases` has no list (RFC 9493 §3.2.8)")
    if not 0 < len(listed) <= _MAX_ALIASES:
        raise _invalid("a subject identifier of the format `aliases` is empty, or too long")
    for one in listed:
        if not isinstance(one, dict) or one.get("format") in {"aliases", "complex"}:
            raise _invalid("an alias is not a simple subject identifier (RFC 9493 §3.2.8)")
        _check_form(one)


def _invalid(description: str) -> SetError:
    return SetError(SetErrorCode.INVALID_REQUEST, description)
