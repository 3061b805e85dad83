"""Case files: what is asked, by whom, and what must come of it, on every surface.

They are the bundle's own test files with four more keys: `bundle` (a folder under `tests/cases/bundles`),
`evidence` (replaces the minted credentials, so that bad ones can be tried), `http` (the same request as Envoy sends
it) and `listener`. `tests/cases/schema.json` is their JSON Schema; a test holds it to these classes.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

CASES: Final = Path(__file__).parents[1] / "cases"
BUNDLES: Final = CASES / "bundles"
SCHEMA: Final = CASES / "schema.json"
#: Values of `${…}` in the bundles. An exception lasts for a year at most, so none that still counts has a date of its own.
VARIABLES: Final = {
    "trust_domain": "a.example",
    "tomorrow": f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}",
}

Word = Annotated[str, Field(pattern=r"^[A-Z][A-Z_]+$")]
Headers = list[tuple[str, str]]


class Strict(BaseModel):
    """No unknown keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, populate_by_name=True
    )


class As(Strict):
    """Who asks."""

    agent: str | None = None
    """A name of `fixtures.agents`, or a SPIFFE id."""
    subject: str | None = None
    """A name of `fixtures.subjects`."""
    bound: bool = False
    """The agent's credential is bound to a key, which it proves to hold."""
    confidence: int = 0
    """Confidence from 0 to 100 that the guard of the tests states for the call."""


class SubjectFixture(Strict):
    """A user or service."""

    issuer: str = "corp"
    """Alias of its issuer."""
    kind: Literal["user", "service"] = "user"
    """What it is."""
    sub: str | None = None
    """`sub` of its token; default: its name here."""
    claims: dict[str, Any] = {}
    """Claims of its token that policy may read."""
    acr: str | None = None
    """How it logged in."""


class Fixtures(Strict):
    """Who there is."""

    agents: dict[str, str] = {}
    """SPIFFE ids by name."""
    subjects: dict[str, SubjectFixture] = {}
    """Subjects by name."""


class EvidenceItem(Strict):
    """One credential, instead of the good one that `as` would bring."""

    role: Literal["agent", "subject", "unspecified", "unknown"]
    """Whose it is said to be."""
    scheme: Literal["bearer", "dpop", "wpt", "unspecified", "unknown"] = "bearer"
    """How it is presented."""
    of: str | None = None
    """A name of the fixtures; default: that of `as`."""
    defect: str | None = None
    """A defect of `tests/support/minting.py`; none: a good token."""
    claims: dict[str, Any] = {}
    """Claims that replace or add; null removes one."""
    proof: str = ""
    """The proof of possession."""


class Http(Strict):
    """The request as Envoy sends it."""

    method: str = "GET"
    """Method."""
    host: str = "crm.example"
    """Authority; empty where the caller sends none."""
    path: str = "/"
    """Target with query, undecoded."""
    headers: Headers = []
    """Headers beside the credentials."""
    body: str | None = None
    """Body as text; none: no body is sent."""
    partial: bool | None = None
    """Value of `x-envoy-auth-partial-body`; default: `false` where there is a body."""
    principal: str = ""
    """`source.principal`."""
    extensions: dict[str, str] = {}
    """`context_extensions`."""
    credentials: bool = True
    """Send the evidence in headers."""


class Upstream(Strict):
    """What a permit does to the request."""

    set: dict[str, str] = {}
    """Headers overwritten."""
    removed: list[str] = []
    """Headers removed."""


class Expect(Strict):
    """What must come out; a key that is not given is not compared."""

    outcome: Literal["PERMIT", "STEP_UP", "DENY"]
    """The answer."""
    code: Word | None = None
    """Reason code."""
    kinds: list[str] | None = None
    """Step-up kinds, sorted."""
    policy: str | None = None
    """The one determining policy."""
    policies: list[str] | None = None
    """The determining policies, sorted."""
    controls: list[str] | None = None
    """Their controls, sorted."""
    observed: dict[str, Literal["PERMIT", "STEP_UP", "DENY"]] | None = None
    """Policies with `@mode("observe")` that would have changed the outcome, each with the outcome that it would have brought."""
    obligations: list[str] | None = None
    """Obligations, sorted."""
    public_code: Word | None = None
    """What the agent sees."""
    next_action: Word | None = None
    """What it can do."""
    tier: Word | None = None
    """Effective tier."""
    resource: str | None = None
    """The Cedar resource."""
    shown_reason: str | None = None
    """The reason that the agent is shown."""
    upstream: Upstream | None = None
    """Over ext_authz: headers."""
    answer: Literal["result", "error", "http"] = "http"
    """Over ext_authz: the member of a JSON-RPC answer that refuses, or none."""


class Selector(Strict):
    """Resources for which all of this holds."""

    collections: list[str] | None = None
    """Any of these collections."""
    ids: list[str] | None = None
    """Any of these ids."""
    path_prefix: str | None = None
    """Ids that begin with these whole segments."""
    label_ceiling: list[str] | None = None
    """No labels but these."""


class Limit(Strict):
    """A limit on one argument: one of these."""

    one_of: list[str] | None = None
    """One of these."""
    range: tuple[int, int] | None = None
    """A whole number from the first to the second."""
    prefix: str | None = None
    """A text that begins so."""


class Scope(Strict):
    """One thing that a task shall be able to do."""

    operation: str
    """Operation id."""
    resources: Selector = Selector()
    """On which resources."""
    arguments: dict[str, Limit] = {}
    """Limits on arguments, by JSON pointer."""
    uses: int | None = None
    """How often."""


class Start(Strict):
    """A task that is started."""

    name: str | None = None
    """What later steps call it; the one that a trace begins with is called `task`."""
    template: str
    """A template of the bundle."""
    subject: str | None = None
    """On whose behalf, a name of the fixtures; default: that of the case's `as`."""
    agent: str | None = None
    """The agent that gets it; default: that of the case's `as`."""
    by: str | None = None
    """The agent that starts it; default: the subject, and without one the agent that gets it."""
    asserted: bool = False
    """The agent that starts it only says who the subject is."""
    params: dict[str, bool | int | str] = {}
    """Parameters of the template."""
    prompt: str = ""
    """The user's words."""
    said_by: Literal["subject", "front_end", "bearer"] | None = None
    """Who says the prompt and the parameters. Default: the subject where it starts the task itself, else the agent that
    starts the task."""
    scope: list[Scope] = []
    """Less than the template gives; default: all of it."""
    deadline: str | None = None
    """How long it lives; default: as long as it may."""


class Extend(Strict):
    """A further turn in the step's task."""

    prompt: str
    """The user's words."""
    said_by: Literal["subject", "front_end", "bearer"] | None = None
    """Who says them. Default: the agent that has the task, beside the subject's token."""


class Delegate(Strict):
    """A task that is delegated, below the task of the step."""

    name: str | None = None
    """What later steps call it."""
    to: str
    """The agent that gets it."""
    template: str | None = None
    """A template of the bundle; default: the parent's."""
    params: dict[str, bool | int | str] = {}
    """Parameters of the template."""
    scope: list[Scope] = []
    """Less than the parent has; default: as much as it may."""
    deadline: str | None = None
    """How long it lives; default: as long as it may."""


class End(Strict):
    """The end of the step's task, and of all below it."""

    status: Literal["completed", "aborted", "revoked"] = "completed"
    """How it ends."""


class Answerer(Strict):
    """A person who answers."""

    subject: str
    """A name of `fixtures.subjects`."""
    by: Literal["passkey", "login"] = "passkey"
    """How the person proves to be there; default `passkey`."""


class Answer(Strict):
    """A person's answer to the approval of an earlier call."""

    as_: Answerer = Field(alias="as")
    """The person who answers."""
    kind: str = ""
    """Queue that the person answers for; default: the only one that the person may answer."""
    of: int | None = None
    """The step of the call, from 1; default: the last call before."""
    reason: str = ""
    """Of `reject`: a name of the bundle's `reject_reasons`."""
    endorse: bool = False
    """Of `approve`: the person endorses the values of the call, too. Default: false."""


class Issue(Strict):
    """A task credential that is issued of the step's permit."""

    name: str
    """What later steps call it."""
    key: str | None = None
    """The key that it is bound to, by any name; `none`: whoever bears it may present it. Default: a key of the agent's."""


class Present(Strict):
    """A task credential that the step presents."""

    credential: str
    """Its name."""
    key: str | None = None
    """Another key that proves."""
    bearer: bool = False
    """It is presented as a bearer token."""
    replay: bool = False
    """The proof of the step before is brought again."""
    method: str | None = None
    """The proof is of another method."""
    uri: str | None = None
    """The proof is of another URI."""


Scalar = bool | int | str


class Report(Strict):
    """What came of a permitted call, told by whoever asked for it."""

    of: int | None = None
    """The step of the call, from 1; default: the last call before."""
    result: Literal["ok", "failed", "aborted"] = "ok"
    """What came of it."""
    labels: list[str] = []
    """Labels that its results carry."""
    actuals: dict[str, int] = {}
    """What was spent of budgets that sum up, by their names."""
    values: dict[str, Scalar | list[Scalar | None]] = {}
    """Values of its result, by their pointers: a list has one for each array element."""


class ExpectTask(Strict):
    """What must come of a step on tasks."""

    code: Word
    """`OK`, or the reason code."""
    beyond: str | None = None
    """In what more is asked than is given."""


class Request(Strict):
    """Further fields of a CheckRequest."""

    task: str = ""
    resource: str = ""
    destinations: list[str] = []
    labels: list[str] = []
    session_context: str = ""
    """Context of the session, which a front end names."""
    confidence_jws: str = ""
    idempotency_key: str = ""
    supported_obligations: list[str] = []
    approval_id: str = ""
    """Id of an approval, or `step N`: that of the call in this step of the trace."""
    mode: Literal["", "ENFORCE", "PROBE", "UNKNOWN"] = ""


class Step(Strict):
    """One request."""

    as_: As | None = Field(default=None, alias="as")
    """Who asks; default: the case's."""
    task: str | None = None
    """The task that the step is on, `none` for no task; default: the one that the trace begins with."""
    after: str | None = None
    """How much later the step is; over a server the trace ends here."""
    start: Start | None = None
    """Starts a task."""
    delegate: Delegate | None = None
    """Delegates a task, below the step's."""
    extend: Extend | None = None
    """Adds a further turn of the user to the step's task."""
    end: End | None = None
    """Ends the step's task."""
    approve: Answer | None = None
    """A person approves an earlier call that stepped up. A server has one person; over it the trace ends at the answer of
    another."""
    reject: Answer | None = None
    """A person rejects an earlier call that stepped up. A server has one person; over it the trace ends at the answer of
    another."""
    report: Report | None = None
    """Tells what came of an earlier call, whose system somebody reports for."""
    issue: Issue | None = None
    """A task credential is asked for with the call, and issued of its permit."""
    present: Present | None = None
    """The task credential that the call presents, in place of what else proves who acts."""
    introspect: str | None = None
    """The task credential that is introspected: `OK` where it is active, else `REVOKED`."""
    revoke: dict[str, str] | None = None
    """What is revoked, such as `{agent: orch}`; the kernel's trace ends here."""
    call: str | None = None
    """Operation id."""
    input: Any = None
    """Arguments; default: none."""
    input_text: str | None = None
    """Arguments as raw text, for what YAML cannot say."""
    input_base64: str | None = None
    """Arguments as raw bytes."""
    request: Request = Request()
    """Further fields."""
    evidence: list[EvidenceItem] | None = None
    """Credentials instead of good ones."""
    http: Http | None = None
    """The request as Envoy sends it."""
    listener: Literal["main", "crm-only", "none"] = "main"
    """`main` asks for all systems, `crm-only` for `crm` alone, `none` is no enforcer."""
    expect: Expect | ExpectTask | Literal["PERMIT", "STEP_UP", "DENY"] | Word
    """What must come out; of a step on tasks `OK` or a reason code."""

    @property
    def wanted(self) -> Expect:
        """What must come out of a call, in full."""
        if isinstance(self.expect, Expect):
            return self.expect
        return Expect.model_validate({"outcome": self.expect})

    @property
    def wanted_task(self) -> ExpectTask:
        """What must come of a step on tasks, in full."""
        if isinstance(self.expect, ExpectTask):
            return self.expect
        return ExpectTask.model_validate({"code": self.expect})


class MatrixCall(Strict):
    """A call of a matrix."""

    call: str | None = None
    """Operation id; default: the name of the call."""
    input: dict[str, Any] | None = None
    """Arguments."""
    request: Request = Request()
    """Further fields."""


class MatrixCaller(Strict):
    """Facts of a caller beside its identity."""

    bound: bool | None = None
    """The agent's credential is bound to a key, which it proves to hold."""
    confidence: int | None = None
    """Confidence from 0 to 100 that the guard of the tests states for the call."""


class MatrixContext(Strict):
    """A context of calls."""

    as_: MatrixCaller = Field(default=MatrixCaller(), alias="as")
    """Facts of the caller that replace those of the principal."""
    input: dict[str, Any] | None = None
    """Arguments that replace or add to those of the call."""
    request: Request = Request()
    """Fields of the request that replace those of the call."""
    task: Start | None = None
    """The task that the call is made in."""
    before: list[Step] = []
    """Steps before the call, in the same session."""


class Matrix(Strict):
    """Calls of several principals in several contexts, with the outcome of each as a table."""

    principals: dict[str, As]
    """Who asks, by the names of the columns."""
    operations: dict[str, MatrixCall | None]
    """Calls, by the names that rows give them."""
    contexts: dict[str, MatrixContext | None] = {}
    """Contexts, by the names that rows give them."""
    outcomes: list[list[str | Expect]] = Field(min_length=2)
    """The head, `[operation, context, PRINCIPAL, ...]`, and a row for each call in a context."""


class Case(Strict):
    """A request, a trace of several, or a matrix."""

    case: str | None = None
    """Its name."""
    matrix: Matrix | None = None
    """Calls of several principals in several contexts: each cell is a case of its own."""
    trace: str | None = None
    """The same, for several steps."""
    as_: As = Field(default=As(), alias="as")
    """Who asks."""
    task: Start | None = None
    """The task that a trace begins with; its steps are on it, each by the agent that has their task."""
    steps: list[Step] | None = None
    """The steps of a trace."""
    call: str | None = None
    input: Any = None
    input_text: str | None = None
    input_base64: str | None = None
    request: Request = Request()
    evidence: list[EvidenceItem] | None = None
    http: Http | None = None
    listener: Literal["main", "crm-only", "none"] = "main"
    expect: Expect | Literal["PERMIT", "STEP_UP", "DENY"] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> "Case":
        if (self.case is None) == (self.trace is None):
            raise ValueError("give `case` or `trace`")
        forms = (self.steps, self.expect, self.matrix)
        if sum(form is not None for form in forms) != 1:
            raise ValueError("give `steps`, one request with `expect`, or `matrix`")
        if self.task is not None and self.steps is None:
            raise ValueError("`task` goes with `steps`")
        return self

    @property
    def has_tasks(self) -> bool:
        """Whether its steps depend on each other by tasks."""
        steps = self.steps or []
        return self.task is not None or any(step.start or step.task for step in steps)

    @property
    def has_credentials(self) -> bool:
        """Whether a step presents a task credential or reports, each once: each surface needs a run of its own."""
        return any(step.present or step.issue or step.report for step in self.steps or [])

    @property
    def has_answers(self) -> bool:
        """Whether a person answers: an answer permits one call on one surface, so each surface needs a run of its own."""
        return any(step.approve or step.reject for step in self.steps or [])

    @property
    def has_rejections(self) -> bool:
        """Whether a person rejects a call."""
        return any(step.reject for step in self.steps or [])

    @property
    def is_over_http(self) -> bool:
        """Whether a proxy can ask about a step."""
        return any(step.http for step in self.steps or [])


class CaseFile(Strict):
    """A file of cases."""

    bundle: str
    """Folder under `tests/cases/bundles`."""
    fixtures: Fixtures = Fixtures()
    """Who there is."""
    tests: list[Case] = Field(min_length=1)
    """The cases."""


@dataclass(frozen=True)
class Flat:
    """One request of one case, with all that it inherits."""

    id: str
    bundle: str
    fixtures: Fixtures
    who: As
    step: Step

    def agent(self, name: str | None = None) -> str | None:
        """Returns the SPIFFE id of an agent, by default the case's."""
        name = name or self.who.agent
        return self.fixtures.agents.get(name, name) if name else None

    def subject(self, name: str | None = None) -> tuple[str, SubjectFixture] | None:
        """Returns `sub` and fixture of a subject, by default the case's."""
        name = name or self.who.subject
        if not name:
            return None
        fixture = self.fixtures.subjects[name]
        return fixture.sub or name, fixture

    @property
    def arguments(self) -> bytes:
        """The arguments as sent."""
        step = self.step
        if step.input_text is not None:
            return step.input_text.encode()
        if step.input_base64 is not None:
            import base64  # noqa: PLC0415 - rarely

            return base64.b64decode(step.input_base64)
        return b"" if step.input is None else json.dumps(step.input, ensure_ascii=False).encode()


@cache
def read(path: Path) -> CaseFile:
    """Reads one file, once in a process: six modules read all of them while their tests are collected.

    Each matrix is replaced by the cases of its cells, as the kernel's reader does.
    """
    file = CaseFile.model_validate(yaml.load(path.read_text(), yaml.CSafeLoader))
    tests = [cell for case in file.tests for cell in cells(case)]
    return file.model_copy(update={"tests": tests})


def cells(case: Case) -> list[Case]:
    """Returns the cases of a matrix, or the case itself."""
    if case.matrix is None:
        return [case]
    head, *rows = case.matrix.outcomes
    words = 2 if case.matrix.contexts else 1
    return [
        cell(case, str(principal), str(row[0]), str(row[1]) if words == 2 else "", expect)
        for row in rows
        for principal, expect in zip(head[words:], row[words:], strict=True)
        if expect != "any"
    ]


def cell(case: Case, principal: str, operation: str, context: str, expect: str | Expect) -> Case:
    """Returns the case of one cell."""
    assert case.matrix is not None
    call = case.matrix.operations[operation] or MatrixCall()
    facts = (case.matrix.contexts[context] if context else None) or MatrixContext()
    who = case.matrix.principals[principal].model_copy(
        update=facts.as_.model_dump(exclude_none=True)
    )
    if isinstance(expect, str):
        outcome, _, code = expect.partition(" ")
        expect = Expect.model_validate({"outcome": outcome, "code": code or None})
    given = call.input is not None or facts.input is not None
    asked = Step.model_validate(
        {
            "call": call.call or operation,
            "input": {**(call.input or {}), **(facts.input or {})} if given else None,
            "request": call.request.model_copy(update=facts.request.model_dump(exclude_unset=True)),
            "expect": expect,
        }
    )
    coordinates = ", ".join(filter(None, (principal, operation, context)))
    name = f"{case.case}: {coordinates}"
    if facts.task is None and not facts.before:
        return Case(
            case=name,
            as_=who,
            call=asked.call,
            input=asked.input,
            request=asked.request,
            expect=expect,
        )
    if facts.task is not None:
        agent_alone = {"subject": None} if who.agent else {}
        asked = asked.model_copy(update={"as_": who.model_copy(update=agent_alone)})
    return Case(trace=name, as_=who, task=facts.task, steps=[*facts.before, asked])


def files() -> list[Path]:
    """Lists the case files: also those of `dated`, whose bundles need `${tomorrow}`, which only tests in Python give."""
    return sorted([*CASES.glob("*.yaml"), *CASES.glob("dated/*.yaml")])


def load() -> list[Flat]:
    """Reads every case of every file but those with tasks, one request each."""
    found: list[Flat] = []
    for path in files():
        file = read(path)
        for case in file.tests:
            if case.has_tasks:
                continue
            name = case.case or case.trace
            steps = case.steps or [_only(case)]
            for index, step in enumerate(steps, 1):
                suffix = f" #{index}" if case.steps else ""
                found.append(
                    Flat(
                        f"{path.stem}: {name}{suffix}",
                        file.bundle,
                        file.fixtures,
                        step.as_ or case.as_,
                        step,
                    )
                )
    return found


def traces() -> list[tuple[str, CaseFile, Case]]:
    """Reads every case with tasks: its id, its file and itself."""
    return [
        (f"{path.stem}: {case.trace}", file, case)
        for path in files()
        for file in [read(path)]
        for case in file.tests
        if case.has_tasks
    ]


def _only(case: Case) -> Step:
    assert case.expect is not None
    return Step(
        call=case.call,
        input=case.input,
        input_text=case.input_text,
        input_base64=case.input_base64,
        request=case.request,
        evidence=case.evidence,
        http=case.http,
        listener=case.listener,
        expect=case.expect,
    )


def schema() -> str:
    """Returns the JSON Schema of case files, as the committed file holds it."""
    made = CaseFile.model_json_schema()
    made["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(made, indent=2, sort_keys=True) + "\n"
