"""Parameters of OAuth requests, read and checked (RFC 6749, 8693, 9396)."""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from authz.server.http.oauth.clients import OAuthClient
from authz.server.http.oauth.defects import Defect
from authz.strict_json import refuse_constant, unique_members

__all__ = [
    "ACCESS_TOKEN",
    "DETAIL_TYPE",
    "TOKEN_EXCHANGE",
    "parse_form",
    "read_exchange",
    "required",
]

TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - a name
"""The one grant type that is served (RFC 8693 §2.1)."""
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name
"""Default of `requested_token_type`."""
DETAIL_TYPE: Final = "authz_task"
"""`type` of authorization details (RFC 9396 §2)."""

_JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
_ID_TOKEN: Final = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105 - a name
_SUBJECTS: Final = frozenset({_JWT, ACCESS_TOKEN, _ID_TOKEN})
_ISSUED: Final = frozenset({_JWT, ACCESS_TOKEN})
_DETAIL_MEMBERS: Final = frozenset({"type", "operation", "resource", "arguments", "destinations"})
_MAX_DETAILS: Final = 16
_MAX_FIELDS: Final = 64
_MAX_LIFETIME: Final = 86_400


def read_exchange(form: dict[str, str], client: OAuthClient) -> dict[str, Any]:
    """Read the parameters of a token exchange (RFC 8693 §2.1) and its authorization details (RFC 9396)."""
    if required(form, "grant_type") != TOKEN_EXCHANGE:
        raise Defect.GRANT.error()
    return {
        "client": {"spiffe_id": client.spiffe_id, "how": client.how},
        **_tokens(form),
        "audience": _audience(form.get("audience"), form.get("resource")),
        "lifetime_seconds": _lifetime(form.get("requested_lifetime")),
        "details": _details(required(form, "authorization_details")),
        **_task(form),
    }


def _tokens(form: Mapping[str, str]) -> dict[str, Any]:
    subject, kind = required(form, "subject_token"), required(form, "subject_token_type")
    actor, actor_kind = form.get("actor_token"), form.get("actor_token_type")
    if (actor is None) != (actor_kind is None):
        raise Defect.HALF_ACTOR.error()
    for defect, said, accepted in (
        (Defect.SUBJECT_TYPE, kind, _SUBJECTS),
        (Defect.ACTOR_TYPE, actor_kind or _JWT, {_JWT}),
        (Defect.REQUESTED_TYPE, form.get("requested_token_type", _JWT), _ISSUED),
    ):
        if said not in accepted:
            raise defect.error()
    if "scope" in form:
        raise Defect.SCOPE.error()
    return {"subject_token": subject, "actor_token": actor}


def _audience(audience: str | None, resource: str | None) -> str | None:
    if resource is not None:
        parts = _split(resource)
        if parts is None or not parts.scheme or "#" in resource:
            raise Defect.RESOURCE.error()
        if audience not in {None, resource}:
            raise Defect.AUDIENCES.error()
    return audience if audience is not None else resource


def _task(form: Mapping[str, str]) -> dict[str, Any]:
    """Read the task of the credential: an existing task, or the parameters of a new one."""
    task, template, parent = form.get("task"), form.get("template"), form.get("parent")
    if task is not None:
        for beside in ("template", "template_params", "prompt", "parent"):
            if beside in form:
                raise Defect.WITH_TASK.error(beside)
        return {"task": task}
    if template is None and parent is None:
        raise Defect.NO_TASK.error()
    if parent is not None and "prompt" in form:
        raise Defect.PROMPT_OF_CHILD.error()
    params = _parsed(form.get("template_params", "{}"), Defect.PARAMS)
    if not isinstance(params, dict):
        raise Defect.PARAMS.error()
    new = {"template": template, "params": params}
    return {**new, "prompt": form.get("prompt"), "parent": parent}


def _details(text: str) -> list[dict[str, Any]]:
    """Read the authorization details; an unknown member is refused (RFC 9396 §5)."""
    details = _parsed(text, Defect.DETAILS)
    if not isinstance(details, list) or not 1 <= len(details) <= _MAX_DETAILS:
        raise Defect.DETAILS.error()
    read = []
    for entry in details:
        if not isinstance(entry, dict) or entry.get("type") != DETAIL_TYPE:
            raise Defect.DETAIL_TYPE.error()
        if unknown := sorted(entry.keys() - _DETAIL_MEMBERS):
            raise Defect.DETAIL_MEMBER.error(unknown[0])
        if not isinstance(entry.get("operation"), str) or not entry["operation"]:
            raise Defect.DETAIL_VALUE.error("operation")
        if not isinstance(entry.get("arguments", {}), dict):
            raise Defect.DETAIL_VALUE.error("arguments")
        if not isinstance(entry.get("resource", ""), str):
            raise Defect.DETAIL_VALUE.error("resource")
        destinations = entry.get("destinations", [])
        if not isinstance(destinations, list) or not all(
            isinstance(name, str) for name in destinations
        ):
            raise Defect.DETAIL_VALUE.error("destinations")
        read.append(
            {"arguments": {}, **{name: value for name, value in entry.items() if name != "type"}}
        )
    return read


def _parsed(text: str, defect: Defect) -> Any:
    """Read JSON that every reader understands alike: no duplicate members, no inexact numbers, no NaN."""

    def exact(number: str) -> float:
        read = float(number)
        if Decimal(repr(read)) != Decimal(number):
            message = "a number has more digits than are read"
            raise ValueError(message)
        return read

    try:
        return json.loads(
            text,
            object_pairs_hook=unique_members,
            parse_float=exact,
            parse_constant=refuse_constant,
        )
    except (ValueError, RecursionError, ArithmeticError) as error:
        raise defect.error() from error


def _lifetime(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text[:9]) <= _MAX_LIFETIME:
        raise Defect.LIFETIME.error()
    return int(text)


def parse_form(body: bytes) -> dict[str, str]:
    """Read a form. A parameter without a value counts as missing, and none may occur twice (RFC 6749 §3.2)."""
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=_MAX_FIELDS,
        )
    except ValueError as error:
        raise Defect.MALFORMED_FORM.error() from error
    form: dict[str, str] = {}
    seen: set[str] = set()
    for name, value in pairs:
        if name in seen:
            is_target = name in {"audience", "resource"}
            raise (Defect.DUPLICATE_TARGET if is_target else Defect.DUPLICATE).error(name)
        seen.add(name)
        if value:
            form[name] = value
    return form


def required(form: Mapping[str, str], name: str) -> str:
    """Return a parameter; raises `OAuthError` where it is missing."""
    value = form.get(name)
    if value is None:
        raise Defect.MISSING.error(name)
    return value


def _split(url: str) -> Any:
    try:
        return urlsplit(url)
    except ValueError:
        return None
