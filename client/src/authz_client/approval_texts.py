"""Texts about a call that waits for a person, for agents and for people.

They hold the URL of the page, the id of the approval and names of the bundle, and nothing from the call.
"""

from typing import Final

from authz_client.approval_code import binding_code
from authz_client.errors import NextAction, Refused, StepUp

__all__ = ["declined_text", "instructions", "page_message", "tell_rejection"]

_ROLE: Final = "approve:"
_PEOPLE: Final = {
    "approve": "another person",
    "confirm": "the user",
    "two_person": "two other people",
}
_BY_ACTION: Final = {NextAction.APPROVE: "another person", NextAction.CONFIRM: "the user"}


def instructions(step_up: StepUp) -> str:
    """Return the text that tells an agent how its call can pass.

    Args:
        step_up: The refusal.

    Returns:
        One to three sentences. Empty if no person is needed, for example if the call needs a fresher credential.
    """
    if not step_up.approval_id:
        return _nobody(step_up)
    request = f"request {step_up.approval_id}, code {binding_code(step_up.approval_id)}"
    where = (
        f"Give your user this page, on which a person decides about exactly this call: {step_up.url} ({request})."
        if step_up.url
        else f"A person decides about exactly this call in Authz ({request}). Tell your user."
    )
    return f"{where} Once it is approved, make the same call again with exactly the same arguments."


def page_message(step_up: StepUp) -> str:
    """Return the text that a client shows beside the URL of the page. Only the code in it varies.

    Args:
        step_up: The refusal.
    """
    return (
        "An AI agent asks to do something that a person must allow first. The page shows exactly what it is. "
        f"Open it only if you expect this, and compare the code: {binding_code(step_up.approval_id)}"
    )


def tell_rejection(refused: Refused, step_up: StepUp) -> None:
    """Add the reason of a person who rejected a call to the refusal of the call, unless the refusal shows a reason.

    Args:
        refused: The refusal of the call that was made again.
        step_up: The step-up whose `wait` ended.
    """
    if step_up.reject_reason and not refused.shown_reason:
        refused.shown_reason = f"A person rejected it: {step_up.reject_reason}."


def declined_text(approval_id: str) -> str:
    """Return the text that tells an agent that its user did not open the page.

    Args:
        approval_id: Id of the approval.
    """
    return (
        f"The user did not open the page of request {approval_id}, so the call was not made. "
        "Do not make it again unless the user asks for it."
    )


def _nobody(step_up: StepUp) -> str:
    people = [_person(kind) for kind in step_up.kinds]
    known = list(dict.fromkeys(person for person in people if person))
    if not known and not step_up.kinds and step_up.next_action in _BY_ACTION:
        known = [_BY_ACTION[step_up.next_action]]
    if not known:
        return ""
    return (
        f"This needs approval by {' and '.join(known)}, and nobody can be asked here: "
        "tell your user to contact the owner of the system."
    )


def _person(kind: str) -> str:
    if kind.startswith(_ROLE):
        return f"a person with the role {kind.removeprefix(_ROLE)}"
    return _PEOPLE.get(kind, "")
