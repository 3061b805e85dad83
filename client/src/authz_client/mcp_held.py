"""MCP calls that wait for a person: responses that ask a client to open the page, and the state that the client returns.

Clients have different capabilities, so a held call is answered by the first of these ways that the client declares:

    input_required     revision 2026-07-28 and `elicitation.url`: the result names the page, and the client repeats the call itself
    elicitation        revision 2025-11-25 and `elicitation.url`: the server sends `elicitation/create`, and the call stays open
    a result           any other client: the model reads the page's address, and calls again

Error -32042 of revision 2025-11-25 is not used: stock clients raise it out of the call, which ends the agent's turn.
"""

import base64
import hashlib
import json
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from authz_client.approval_texts import page_message
from authz_client.errors import StepUp
from authz_client.mcp_answers import DECISION_META, public_members
from authz_client.result_values import STRICT_JSON

__all__ = [
    "CAPABILITIES_META",
    "DEFAULT_WAIT_SECONDS",
    "INPUT_KEY",
    "MOST_HELD",
    "MOST_ROUNDS",
    "STATE_REFUSED",
    "ComingBack",
    "HeldCall",
    "HeldStates",
    "Rung",
    "StateError",
    "ToldRequests",
    "coming_back",
    "input_required",
    "rung_of",
    "url_elicitation",
]

CAPABILITIES_META: Final = "io.modelcontextprotocol/clientCapabilities"
"""Member of a request's `_meta` that holds the client's capabilities, from revision 2026-07-28 on."""
INPUT_KEY: Final = "dev.authz/approval"
"""Name of the question in `inputRequests`."""
DEFAULT_WAIT_SECONDS: Final = 50.0
"""Longest time that a held call stays open, in seconds. Stock TypeScript clients abandon a request after 60 seconds."""
MOST_HELD: Final = 256
"""Maximum number of open held calls of one process. Further calls are answered by a result."""
MOST_ROUNDS: Final = 8
"""Maximum number of rounds of one call. Stock clients abandon a call after ten."""
STATE_REFUSED: Final = (
    "the `requestState` is not valid, was used, or has expired: call again without it"
)
"""Text of the JSON-RPC error -32602 for a state that `HeldStates.open` refuses."""

_PREFIX: Final = "authz1."
_STATE_SECONDS: Final = 3_600.0
_MOST_STATES: Final = 4_096
_MOST_TOLD: Final = 1_024
_LONGEST_STATE: Final = 4_096
_NONCE: Final = 12
_MODERN: Final = "2026-07-28"
_URL_ELICITATION: Final = "2025-11-25"


class Rung(Enum):
    """Way in which a held call is answered."""

    INPUT_REQUIRED = "input_required"
    ELICITATION = "elicitation"
    RESULT = "result"


def rung_of(
    step_up: StepUp, *, revision: str, capabilities: object, carries_state: bool = False
) -> Rung:
    """Choose the way in which a held call is answered.

    Args:
        step_up: The refusal.
        revision: Revision of MCP between client and server. Empty if it is not known.
        capabilities: The client's capabilities, as JSON.
        carries_state: Whether the call carries a state of the server, which a response of ours would replace.
    """
    if not step_up.approval_id or not step_up.url or not _opens_pages(capabilities):
        return Rung.RESULT
    if revision == _MODERN:
        return Rung.RESULT if carries_state else Rung.INPUT_REQUIRED
    return Rung.ELICITATION if revision == _URL_ELICITATION else Rung.RESULT


def _opens_pages(capabilities: object) -> bool:
    elicitation = capabilities.get("elicitation") if isinstance(capabilities, Mapping) else None
    return isinstance(elicitation, Mapping) and isinstance(elicitation.get("url"), Mapping)


def url_elicitation(step_up: StepUp) -> dict[str, Any]:
    """Return the parameters of `elicitation/create` that ask a client to open the page.

    Args:
        step_up: The refusal.
    """
    return {"mode": "url", "message": page_message(step_up), "url": step_up.url}


def input_required(step_up: StepUp, state: str, *, asks: bool) -> dict[str, Any]:
    """Return the result that asks a client to open the page and to repeat the call.

    Args:
        step_up: The refusal.
        state: The sealed state.
        asks: Whether to ask the client to open the page. Otherwise the client only repeats the call.

    Returns:
        An `InputRequiredResult`.
    """
    result: dict[str, Any] = {
        "_meta": {DECISION_META: public_members(step_up)},
        "resultType": "input_required",
        "requestState": state,
    }
    if asks:
        question = {"method": "elicitation/create", "params": url_elicitation(step_up)}
        result["inputRequests"] = {INPUT_KEY: question}
    return result


class StateError(Exception):
    """A returned state is not valid. The text is for the log."""


@dataclass(frozen=True, slots=True)
class HeldCall:
    """The call that a state belongs to, and its caller."""

    principal: str
    """Caller and task, in any stable form."""
    operation: str
    """Operation id."""
    tool: str
    """Exact name of the tool. Empty for another request."""
    arguments: bytes
    """Arguments as one JSON object."""

    def digest(self) -> str:
        """Digest of the call. It ignores the order of members and the form of numbers, because the node compares the exact call again."""
        value = STRICT_JSON.decode(self.arguments.decode())
        parts = [self.principal, self.operation, self.tool, value]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ComingBack:
    """A call that a client repeats with a state of ours."""

    state: str
    """The sealed state."""
    is_declined: bool
    """The user did not open the page."""


def coming_back(params: Mapping[str, Any]) -> ComingBack | None:
    """Find a state of this process in the parameters of a request.

    Args:
        params: The parameters, as JSON.

    Returns:
        The state and whether the user declined, or None if the request has no state of this process.

    Raises:
        StateError: The request has both a state of this process and answers to other questions.
    """
    state = params.get("requestState")
    if not isinstance(state, str) or not state.startswith(_PREFIX):
        return None
    answers = params.get("inputResponses", {})
    if not isinstance(answers, Mapping) or not set(answers) <= {INPUT_KEY}:
        raise StateError("`inputResponses` has answers to other questions")
    answer = answers.get(INPUT_KEY, {"action": "accept"})
    is_accepted = isinstance(answer, Mapping) and answer.get("action") == "accept"
    return ComingBack(state, is_declined=not is_accepted)


@final
class HeldStates:
    """Seals the states of one process, and opens each of them once.

    A state holds the id of the approval, the caller, the digest of the call and an end, encrypted and authenticated (AES-256-GCM) with a
    key of this process. A state of another process, or from before a restart, is refused, and the client must repeat the call.

    Args:
        now: Returns seconds since 1970.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._key = AESGCM(AESGCM.generate_key(256))
        self._now = now
        self._unused: OrderedDict[bytes, None] = OrderedDict()

    def seal(self, step_up: StepUp, call: HeldCall, round_number: int = 0) -> str:
        """Make a state.

        Args:
            step_up: The refusal.
            call: The call.
            round_number: Number of earlier rounds of the call.
        """
        end = self._now() + _STATE_SECONDS
        claims = [step_up.approval_id, call.digest(), end, round_number]
        nonce = os.urandom(_NONCE)
        sealed = self._key.encrypt(nonce, json.dumps(claims).encode(), _PREFIX.encode())
        # INVARIANT (single use): a state is accepted only while its nonce is stored here. When it is full, the oldest nonce is dropped.
        self._unused[nonce] = None
        while len(self._unused) > _MOST_STATES:
            self._unused.popitem(last=False)
        return _PREFIX + _encode(nonce + sealed)

    def open(self, state: str, call: HeldCall) -> tuple[str, int]:
        """Open a state, once.

        Args:
            state: The state.
            call: The call that comes with it.

        Returns:
            The id of the approval, and the number of earlier rounds.

        Raises:
            StateError: The state was changed, comes from another process, was used, has expired, or belongs to another call or caller.
        """
        if len(state) > _LONGEST_STATE:
            raise StateError("too long")
        text = state.removeprefix(_PREFIX)
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            claims = self._key.decrypt(raw[:_NONCE], raw[_NONCE:], _PREFIX.encode())
        except (ValueError, InvalidTag):
            raise StateError("changed, or not of this process") from None
        # The last character of base64 may have bits that mean nothing, so several texts would stand for one state.
        if _PREFIX + _encode(raw) != state:
            raise StateError("changed, or not of this process")
        if raw[:_NONCE] not in self._unused:
            raise StateError("used before")
        del self._unused[raw[:_NONCE]]
        approval_id, digest, end, round_number = json.loads(claims)
        if self._now() >= end:
            raise StateError("expired")
        if digest != call.digest():
            raise StateError("of another call or caller")
        return approval_id, round_number


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@final
class ToldRequests:
    """Approvals that an agent has been told about. A repeated call then stays open, instead of getting the same answer again."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()

    def tell(self, approval_id: str) -> bool:
        """Remember an approval.

        Args:
            approval_id: Id of the approval.

        Returns:
            Whether the agent had been told about the approval before.
        """
        known = approval_id in self._ids
        self._ids[approval_id] = None
        self._ids.move_to_end(approval_id)
        while len(self._ids) > _MOST_TOLD:
            self._ids.popitem(last=False)
        return known
