"""The engine with keys of its own, and those who act in it."""

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self, Unpack, final
from urllib.parse import urlsplit

from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from authz.bundle import read_folder
from authz.config import Limits
from authz.engine import EnforcerRules, Engine, ListenerRules, Plan, Trust, default_settings
from authz.errors import ApiError, UsageError
from authz.model import BundleFiles, CallFacts, Surface
from authz.tools.keys import DevDomain
from authz_client import (
    Authz,
    Caller,
    CheckOptions,
    Denied,
    Permit,
    Refused,
    StepUp,
    TransportError,
    acting_for,
    default,
)

__all__ = ["Actor", "Kernel", "Subject"]

_LISTENER: Final = "testing"
_AUDIENCE: Final = "authz"
# Of tokens that no agent gets.
_ALONE_AUDIENCE: Final = "authz-testing-own"
_ANY_RATE: Final = 1_000_000
_UNIMPLEMENTED: Final = 12
_CHECK: Final = "authz.v1.Authorizer/Check"
_SURFACES: Final = {
    "authz.v1.Authorizer/List": Surface.LIST,
    "authz.v1.Authorizer/Report": Surface.REPORT,
    "authz.v1.Tasks/Start": Surface.TASK_START,
    "authz.v1.Tasks/Delegate": Surface.TASK_DELEGATE,
    "authz.v1.Tasks/Extend": Surface.TASK_EXTEND,
    "authz.v1.Tasks/End": Surface.TASK_END,
}
# So that a slow machine does not deny where a test expects a permit.
_TIMEOUT: Final = 30.0

Claim = str | int | bool | Collection[str]
"""A claim of a token, as policies can use it."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Subject that an agent acts for, as in its token."""

    sub: str
    """`sub` of the token."""
    issuer: str = "corp"
    """Alias of the issuer in the bundle."""
    claims: Mapping[str, Claim] = field(default_factory=dict)
    """Further claims, for example those that `subjects` of the bundle tests."""
    service: bool = False
    """Whether the subject is a service instead of a person."""


@dataclass(slots=True)
class _Issuer:
    keys: DevDomain
    service: bool
    claims: set[str]


@final
class Kernel:
    """The engine with one bundle, for a test or a session of tests.

    Args:
        plan: The compiled bundle.
        enforcer: Value of `context.enforcer` in policies.
    """

    def __init__(self, plan: Plan, *, enforcer: str = "testing") -> None:
        self.plan = plan
        self._enforcer = enforcer
        self._folder = Path(tempfile.mkdtemp(prefix="authz-testing-"))
        self._lock = threading.Lock()
        self._domains: dict[str, DevDomain] = {}
        self._issuers: dict[str, _Issuer] = {}
        limits = Limits(probe_rate=_ANY_RATE, probe_burst=_ANY_RATE)
        audit = str(self._folder / "audit.jsonl")
        self._engine = Engine(default_settings(audit, limits=limits))
        self._load()

    @staticmethod
    def load(
        bundle: str | Path | Mapping[str, str | bytes],
        *,
        variables: Mapping[str, str] | None = None,
        enforcer: str = "testing",
    ) -> "Kernel":
        """Compile a bundle.

        Args:
            bundle: Its folder, or its files by path.
            variables: Values of `${…}`.
            enforcer: Value of `context.enforcer` in policies.

        Returns:
            The kernel.

        Raises:
            BundleError: With every defect.
        """
        if isinstance(bundle, Mapping):
            files = {
                name: text.encode() if isinstance(text, str) else text
                for name, text in bundle.items()
            }
            read = BundleFiles("bundle", files)
        else:
            read = read_folder(Path(bundle))
        return Kernel(Plan.compile(read, variables or {}), enforcer=enforcer)

    def close(self) -> None:
        """Close the engine and remove its files."""
        self._engine.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- who acts

    def act(self, agent: str | None = None, subject: Subject | None = None) -> "Actor":
        """Make somebody who acts, with credentials that hold.

        Args:
            agent: The agent, as a SPIFFE id. Default: the subject acts itself, with a token that no agent gets, so that a
                prompt of its names what it says.
            subject: Subject that the agent acts for. Default: the agent acts for itself.

        Returns:
            The actor.

        Raises:
            UsageError: Neither agent nor subject is given, or the agent is not a SPIFFE id.
        """
        if agent is None and subject is None:
            raise UsageError("name an agent, a subject or both")
        return Actor(
            self,
            agent_token=self._svid(agent) if agent is not None else None,
            subject_token=self._token(subject, alone=agent is None)
            if subject is not None
            else None,
        )

    def client(self, **more: Any) -> Authz:
        """Make a client of this kernel, for code that takes one.

        Args:
            more: As of `Authz`, such as `enforcer=True`.

        Returns:
            The client.
        """
        return Authz(transport=_InProcess(self._engine), **{"timeout": _TIMEOUT, **more})

    def _svid(self, agent: str) -> str:
        parts = urlsplit(agent)
        if parts.scheme != "spiffe" or not parts.netloc or not parts.path.strip("/"):
            raise UsageError(f"`{agent}` is not a SPIFFE id: spiffe://<trust domain>/<path>")
        with self._lock:
            keys = self._domains.get(parts.netloc)
            if keys is None:
                keys = DevDomain.make(parts.netloc, "")
                self._domains[parts.netloc] = keys
                self._load()
        return keys.svid(parts.path, _AUDIENCE)

    def _token(self, subject: Subject, *, alone: bool) -> str:
        with self._lock:
            issuer = self._issuers.get(subject.issuer)
            claims = set(subject.claims)
            if issuer is None:
                keys = DevDomain.make("", f"https://{subject.issuer}.issuer.example")
                issuer = _Issuer(keys, subject.service, claims)
                self._issuers[subject.issuer] = issuer
                self._load()
            elif not claims <= issuer.claims:
                issuer.claims |= claims
                self._load()
        if issuer.service != subject.service:
            raise UsageError(f"issuer `{subject.issuer}` speaks of people or of services, not both")
        given = {
            name: claim if isinstance(claim, str | int) else list(claim)
            for name, claim in subject.claims.items()
        }
        audience = _ALONE_AUDIENCE if alone else _AUDIENCE
        return issuer.keys.subject_token(subject.sub, audience, given)

    def _load(self) -> None:
        """Give the engine the bundle and every key so far."""
        domains = {
            name: {
                "bundle": json.dumps(
                    {"keys": [keys.agents.public_jwk(use="jwt-svid")], "spiffe_sequence": 1}
                ),
                "from": name,
            }
            for name, keys in self._domains.items()
        }
        issuers = {
            alias: {
                "issuer": issuer.keys.issuer,
                "audience": [_AUDIENCE],
                "alone_audience": [_ALONE_AUDIENCE],
                "algorithms": ["ES256"],
                "jwks": json.dumps(
                    {"keys": [issuer.keys.subjects.public_jwk(use="sig", alg="ES256")]}
                ),
                "from": alias,
                "subject": "service" if issuer.service else "user",
                "claims": sorted(issuer.claims),
            }
            for alias, issuer in self._issuers.items()
        }
        spec = {"audiences": [_AUDIENCE], "domains": domains, "issuers": issuers}
        listener = ListenerRules(
            _LISTENER,
            enforcer=EnforcerRules(
                self._enforcer, asks=("system:*",), relays=("labels",), reports="sdk"
            ),
            surfaces=None,
        )
        trust = Trust.compile(json.dumps(spec).encode())
        # As if their files had just been changed.
        recipient_lists = {
            recipient_list.name: time.time() for recipient_list in self.plan.recipient_lists
        }
        self._engine.load(self.plan, trust, [listener], [], recipient_lists=recipient_lists)


@final
class Actor:
    """A caller in a test: it asks, and asserts the answers.

    Args:
        kernel: Kernel that decides.
        agent_token: The agent's credential.
        subject_token: The subject's credential.
    """

    def __init__(
        self, kernel: Kernel, *, agent_token: str | None, subject_token: str | None
    ) -> None:
        self.subject_token = subject_token
        """The subject's token, for `Authz.task(…, subject_token=…)`."""
        self.client = kernel.client(credentials=agent_token)
        """A client with the agent's credential."""
        self.caller = Caller(agent_token=agent_token, subject_token=subject_token)
        """This actor as the caller of a tool server, for `with caller(…):`."""

    @contextmanager
    def working(self) -> Iterator[Authz]:
        """Run code that uses `guard` and `task` of `authz_client` as this actor.

        Yields:
            The client.
        """
        before = default.used()
        default.use(self.client)
        try:
            if self.subject_token is None:
                yield self.client
            else:
                with acting_for(self.subject_token):
                    yield self.client
        finally:
            default.use(before)

    def ask(
        self,
        operation: str,
        arguments: Mapping[str, Any] | None = None,
        **asked: Unpack[CheckOptions],
    ) -> Permit | Refused:
        """Ask for a decision.

        Args:
            operation: Its id.
            arguments: Its arguments.
            asked: Further options of the question.

        Returns:
            The permit, or the refusal.
        """
        if self.subject_token is not None and "task" not in asked:
            asked.setdefault("subject_token", self.subject_token)
        try:
            return self.client.check(operation, arguments, **asked)
        except Refused as refused:
            return refused

    def permits(
        self,
        operation: str,
        arguments: Mapping[str, Any] | None = None,
        **asked: Unpack[CheckOptions],
    ) -> Permit:
        """Assert that an operation is permitted.

        Args:
            operation: Its id.
            arguments: Its arguments.
            asked: Further options of the question.

        Returns:
            The permit.

        Raises:
            AssertionError: It is not.
        """
        answer = self.ask(operation, arguments, **asked)
        if not isinstance(answer, Permit) or not answer.enforced:
            raise AssertionError(f"{operation}: expected PERMIT; got {_said(answer)}")
        return answer

    def denies(
        self,
        operation: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        code: str = "",
        policy: str = "",
        **asked: Unpack[CheckOptions],
    ) -> Refused:
        """Assert that an operation is denied.

        Args:
            operation: Its id.
            arguments: Its arguments.
            code: The reason code; empty: any but those of failures.
            policy: `@id` of a policy that must have determined it; empty: any or none.
            asked: Further options of the question.

        Returns:
            The refusal.

        Raises:
            AssertionError: It is not denied, or not so.
        """
        answer = self.ask(operation, arguments, **asked)
        wanted = _wanted("DENY", code, policy)
        is_so = isinstance(answer, Denied) or (
            isinstance(answer, Refused) and not isinstance(answer, StepUp) and bool(code)
        )
        if not isinstance(answer, Refused) or not is_so or not _fits(answer, code, policy):
            raise AssertionError(f"{operation}: expected {wanted}; got {_said(answer)}")
        return answer

    def steps_up(
        self,
        operation: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        kinds: Collection[str] | None = None,
        code: str = "",
        policy: str = "",
        **asked: Unpack[CheckOptions],
    ) -> StepUp:
        """Assert that something must be shown first.

        Args:
            operation: Its id.
            arguments: Its arguments.
            kinds: Expected kinds. Default: any.
            code: The reason code; empty: any.
            policy: `@id` of a policy that must have determined it; empty: any or none.
            asked: Further options of the question.

        Returns:
            The refusal.

        Raises:
            AssertionError: Nothing must be shown, or something else.
        """
        answer = self.ask(operation, arguments, **asked)
        is_so = isinstance(answer, StepUp) and (kinds is None or set(kinds) == set(answer.kinds))
        if not isinstance(answer, StepUp) or not is_so or not _fits(answer, code, policy):
            wanted = _wanted("STEP_UP", *sorted(kinds or ()), code, policy)
            raise AssertionError(f"{operation}: expected {wanted}; got {_said(answer)}")
        return answer

    def could(self, system: str = "") -> tuple[str, ...]:
        """List what could be permitted; never a decision.

        Args:
            system: Only operations of this system.

        Returns:
            Operation ids, sorted.
        """
        subject = self.subject_token
        if subject is None:
            return self.client.list(system)
        with acting_for(subject):
            return self.client.list(system)


def _fits(answer: Refused, code: str, policy: str) -> bool:
    return (not code or answer.reason_code == code) and (not policy or policy in answer.policy_ids)


def _wanted(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _said(answer: Permit | Refused) -> str:
    if isinstance(answer, Permit):
        return "PERMIT" if answer.enforced else "a denial that `mode` only observes"
    kinds = " ".join(answer.kinds) if isinstance(answer, StepUp) else ""
    name = {StepUp: "STEP_UP", Denied: "DENY"}.get(type(answer), "UNAVAILABLE")
    because = f" because of {', '.join(answer.policy_ids)}" if answer.policy_ids else ""
    return f"{_wanted(name, answer.reason_code, kinds)}{because}: {answer.message or answer}"


class _InProcess:
    """Carries calls to an engine of this process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def call(self, method: str, request: bytes, timeout: float) -> bytes:
        facts = CallFacts(_LISTENER, remaining=timeout)
        if method == _CHECK:
            return self._engine.check(request, facts)
        surface = _SURFACES.get(method)
        if surface is None:
            raise TransportError(_UNIMPLEMENTED, f"{method} is not in this version")
        try:
            return self._engine.call(surface, request, facts)
        except ApiError as error:
            info = any_pb2.Any()
            info.Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain="authz.dev"))
            status = status_pb2.Status(code=error.grpc_code, details=[info])
            raise TransportError(error.grpc_code, str(error), status.SerializeToString()) from error
        raise TransportError(_UNIMPLEMENTED, f"{method} is not in this version")

    async def acall(self, method: str, request: bytes, timeout: float) -> bytes:  # noqa: ASYNC109 - part of the protocol
        return self.call(method, request, timeout)

    def close(self) -> None:
        pass

    async def aclose(self) -> None:
        pass
