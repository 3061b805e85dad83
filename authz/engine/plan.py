"""A compiled bundle, and functions over single files of a bundle."""

import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from authz import _native
from authz.engine.description import BundleDescription
from authz.engine.native_errors import bundle_errors, diagnostics_of
from authz.errors import BundleError, UsageError
from authz.model import (
    BundleFiles,
    Diagnostic,
    EarlyStop,
    EarlyStops,
    Observing,
    RecipientList,
    RuleChanges,
    StandingException,
)

__all__ = [
    "Plan",
    "PromptWord",
    "RecipientListEntries",
    "TestReport",
    "bundle_digest",
    "bundle_schema",
    "bundle_variables",
    "case_schema",
    "format_policy",
    "mcp_arguments",
    "prompt_names",
    "prompt_values",
    "prompt_words",
    "seal_catalog",
    "spiffe_covers",
]

_MAX_RULES: Final = 100


@final
class RecipientListEntries:
    """Destinations of a recipient list that was fetched."""

    __slots__ = ("native",)

    def __init__(self, native: "_native.Entries") -> None:
        self.native = native

    @staticmethod
    def read(text: str, column: str | None, alias: str | None = None) -> "RecipientListEntries":
        """Read a recipient list.

        Args:
            text: The fetched document.
            column: Column of a CSV file with a header. `None`: each line is an entry.
            alias: Column of the names by which people call the entries. `None`: they have none.

        Raises:
            BundleError: One entry is not valid. Then no entry of the document is used.
        """
        try:
            return RecipientListEntries(_native.Entries.read(text.encode(), column, alias))
        except ValueError as error:
            raise BundleError((Diagnostic(f"the fetched list is refused: {error}"),)) from error

    def __len__(self) -> int:
        return len(self.native)


@dataclass(frozen=True, slots=True)
class TestReport:
    """Results of a bundle's own tests."""

    __test__ = False

    document: Mapping[str, Any]
    """The report, as the engine wrote it."""


@final
class Plan:
    """A compiled bundle."""

    __slots__ = ("native",)

    def __init__(self, native: "_native.Plan") -> None:
        self.native = native

    @staticmethod
    def compile(
        bundle: BundleFiles,
        variables: Mapping[str, str],
        previous: "Plan | None" = None,
        *,
        now_ms: int | None = None,
    ) -> "Plan":
        """Compile a bundle.

        Args:
            bundle: Files of the bundle.
            variables: Values of `${…}`.
            previous: The plan before. Parts that did not change are not validated again.
            now_ms: Unix time in milliseconds, compared with the ends of `mode`. Default: now.

        Raises:
            BundleError: The bundle is not valid; it lists every error.
        """
        before = previous.native if previous is not None else None
        now = now_ms if now_ms is not None else int(time.time() * 1000)
        with bundle_errors(bundle.files):
            return Plan(_native.Plan.compile(dict(bundle.files), dict(variables), now, before))

    @property
    def name(self) -> str:
        """Name of the bundle."""
        return self.native.name

    @property
    def revision(self) -> str:
        """Revision of the bundle."""
        return self.native.revision

    @property
    def digest(self) -> str:
        """SHA-256 of the bundle's files, in hex."""
        return self.native.digest

    @property
    def systems(self) -> tuple[str, ...]:
        """Systems of the catalog."""
        return tuple(self.native.systems)

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """Errors that do not refuse the bundle."""
        return diagnostics_of(self.native.warnings)

    def cedar_schema(self, *, as_json: bool = False) -> str:
        """Return the Cedar schema under which the policies were validated.

        Args:
            as_json: In Cedar's JSON form. Default: in Cedar's own syntax.
        """
        return self.native.cedar_schema_json() if as_json else self.native.cedar_schema()

    def lint(
        self, issuers: Collection[str] | None = None, *, has_guards: bool | None = None
    ) -> tuple[Diagnostic, ...]:
        """Find parts of the bundle that can have no effect, or that nobody can ever use.

        Args:
            issuers: Aliases of the issuers of the configuration. `None`: not known, so aliases are not looked up.
            has_guards: The configuration has a guard. `None`: not known.

        Returns:
            Warnings, each with the code of its check.
        """
        known = None if issuers is None else set(issuers)
        return diagnostics_of(self.native.lint(known, has_guards))

    @property
    def recipient_lists(self) -> tuple[RecipientList, ...]:
        """Named sets of destinations that others maintain."""
        return tuple(
            RecipientList(
                name=str(entry["name"]),
                file=str(entry["file"] or ""),
                url=str(entry["url"] or ""),
                column=entry["column"],
                alias=entry["alias"],
                max_age=entry["max_age_seconds"],
                entries=entry["entries"],
                trusted=bool(entry["trusted"]),
            )
            for entry in json.loads(self.native.recipient_lists)
        )

    @property
    def observing(self) -> tuple[Observing, ...]:
        """Entries of `mode` with `observe` and policies with `@mode("observe")`, ended or not."""
        return tuple(
            Observing(
                scope=str(entry["scope"]),
                name=str(entry["name"]),
                owner=str(entry["owner"]),
                until=int(entry["until_ms"]) / 1000,
            )
            for entry in json.loads(self.native.observing)
        )

    @property
    def exceptions(self) -> tuple[StandingException, ...]:
        """Standing exceptions, expired or not, by name."""
        return tuple(
            StandingException(
                name=str(entry["name"]),
                who=str(entry["who"]),
                operations=tuple(entry["operations"]),
                tier_cap=str(entry["tier_cap"]),
                owner=str(entry["owner"]),
                reason=str(entry["reason"]),
                ticket=str(entry["ticket"]),
                obligations=tuple(entry["obligations"]),
                expires_ms=int(entry["expires_ms"]),
                at=str(entry["at"]),
            )
            for entry in json.loads(self.native.exceptions)
        )

    def early_stops(self, now_ms: int) -> EarlyStops:
        """Return requests that `mode` enforces although their system is observed: they stop before they are judged.

        Args:
            now_ms: Unix time in milliseconds.

        Returns:
            Agents and systems; empty where no entry of `mode` observes.
        """
        stops = json.loads(self.native.early_stops(now_ms))
        return EarlyStops(
            agents=tuple(stops["agents"]),
            systems=tuple(
                EarlyStop(
                    system=str(stop["system"]),
                    unplaced=bool(stop["unplaced"]),
                    operations=tuple(stop["operations"]),
                    tiers=tuple(stop["tiers"]),
                )
                for stop in stops["systems"]
            ),
        )

    @property
    def harnesses(self) -> tuple[str, ...]:
        """Roles of agents that relay their users' prompts."""
        return tuple(self.native.harnesses)

    @property
    def person_kinds(self) -> tuple[str, ...]:
        """Step-up kinds of the bundle that people lift, sorted."""
        return tuple(self.native.person_kinds)

    @property
    def operation_count(self) -> int:
        """Number of operations in the catalog."""
        return self.native.operation_count

    @property
    def policy_count(self) -> int:
        """Number of policies."""
        return self.native.policy_count

    def rule_changes(self, before: "Plan | None") -> RuleChanges:
        """Return which sequences and budgets keep their progress when this plan replaces another.

        Args:
            before: The plan that served. `None`: this is the first plan.

        Returns:
            At most 100 names in each list.
        """
        if before is None:
            return RuleChanges()
        renewal = json.loads(self.native.renewal(before.native))
        lists = [tuple(map(str, renewal[name])) for name in ("changed", "added", "removed")]
        changed, added, removed = (names[:_MAX_RULES] for names in lists)
        omitted = sum(max(0, len(names) - _MAX_RULES) for names in lists)
        return RuleChanges(int(renewal["carried"]), changed, added, removed, omitted)

    def tools(self) -> list[dict[str, Any]]:
        """Return the review state of each tool of an MCP system.

        Returns:
            One row a tool: `system`, `tool`, `operation`, `digest`, `accepted`, `reviewed`, `drifted`, `effects`, `tier`,
            `cases`, `file`, `line`.
        """
        rows: list[dict[str, Any]] = json.loads(self.native.tools())
        return rows

    def describe(self) -> BundleDescription:
        """Describe policies, operations, systems, roles and routes, for tools."""
        return BundleDescription.read(self.native.describe())

    @property
    def identity(self) -> dict[str, str]:
        """Name, revision and digest, as JSON documents have them."""
        return {"name": self.name, "revision": self.revision, "digest": self.digest}

    def without(self, bundle: BundleFiles, policy: str, now_ms: int) -> "Plan":
        """Compile the bundle of this plan without one policy. No node serves such a plan.

        Args:
            bundle: Files of the bundle.
            policy: `@id` of the policy.
            now_ms: Unix time in milliseconds, compared with the ends of `mode`.

        Raises:
            BundleError: The bundle is not valid without the policy.
        """
        with bundle_errors(bundle.files):
            return Plan(self.native.without(dict(bundle.files), now_ms, policy))

    def test(
        self,
        bundle: BundleFiles,
        now_ms: int,
        *,
        covers: bool = False,
        stops_at_failure: bool = False,
    ) -> TestReport:
        """Run the bundle's own tests.

        Args:
            bundle: Files of the bundle.
            now_ms: Time of the tests: Unix time in milliseconds.
            covers: The report tells which parts of the bundle the tests reach.
            stops_at_failure: The run ends after the first test that fails.

        Raises:
            BundleError: A test file cannot be read.
        """
        cases = {
            name: content
            for name, content in bundle.files.items()
            if name.startswith("tests/") and name.endswith((".yaml", ".yml"))
        }
        with bundle_errors(bundle.files):
            report = self.native.test(
                cases, now_ms, covers=covers, stops_at_failure=stops_at_failure
            )
            return TestReport(json.loads(report))

    def eval(self, request: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
        """Judge one request offline, on facts that are stated instead of proved.

        Args:
            request: The request, as documented for `authz eval`.
            now_ms: Unix time in milliseconds.

        Returns:
            The decision with its trace.

        Raises:
            BundleError: The request cannot be read.
        """
        with bundle_errors():
            decision: dict[str, Any] = json.loads(
                self.native.eval(json.dumps(request).encode(), now_ms)
            )
            return decision

    def replay(self, record: bytes, now_ms: int, against: "Plan | None" = None) -> dict[str, Any]:
        """Judge a recorded decision again, from its facts.

        Args:
            record: Line of an audit log.
            now_ms: Time of the decision, Unix time in milliseconds.
            against: Bundle whose answer the new answer is compared with. Default: the recorded answer.

        Returns:
            `status` (`replayed`, `open` or `not_replayed`), `before`, `after`, `reason`, `message`, `missing`, `best` and `worst`.

        Raises:
            BundleError: The line is not a record of a decision.
        """
        with bundle_errors():
            judged: dict[str, Any] = json.loads(
                self.native.replay(record, now_ms, against.native if against else None)
            )
            return judged

    def simulate(self, session: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Take a session through the bundle, step by step, on an engine with an empty store.

        Args:
            session: `issuers` and `steps`; a step has `at_ms` and one of `start`, `delegate`, `call`, `report` and `end`.

        Returns:
            The result of each step, in order.

        Raises:
            BundleError: The session has another form.
        """
        with bundle_errors():
            steps: list[dict[str, Any]] = json.loads(
                self.native.simulate(json.dumps(session).encode())
            )["steps"]
            return steps

    def can(self, query: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
        """Return the best outcome of each operation, for example principals.

        Args:
            query: `agents` (roles or SPIFFE ids), `subject_roles`, `subjects` (`{issuer, sub, kind, claims}`) and `template`,
                each optional. Default: one principal of each role.
            now_ms: Unix time in milliseconds.

        Returns:
            `chains`, each with `agent`, `subject` and `rows`.

        Raises:
            BundleError: The query names a role or a template that the bundle lacks, or it has too many chains.
        """
        with bundle_errors():
            table: dict[str, Any] = json.loads(self.native.can(json.dumps(query).encode(), now_ms))
            return table


@dataclass(frozen=True, slots=True)
class PromptWord:
    """A word of a prompt that could name something."""

    text: str
    """The word."""
    kind: str
    """`email`, `url`, `iban`, `account`, `path`, `amount` or `id`; empty for any other word."""
    name: str
    """Canonical form of the name."""
    why: str
    """Why the word names nothing; empty where it names something."""


def mcp_arguments(
    method: str | None, params: bytes, *, is_notification: bool = False
) -> bytes | None:
    """Return the arguments of the operation `<system>.mcp`, which stands for a message of MCP.

    Args:
        method: Method of the message; None for a response.
        params: JSON object: parameters of the message; of a response its `result` or `error`.
        is_notification: The message is a notification.

    Returns:
        One JSON object; None for a method that MCP does not have.

    Raises:
        ValueError: `params` is not a JSON object.
    """
    return _native.mcp_arguments(method, params, is_notification=is_notification)


def prompt_names(prompt: str) -> tuple[PromptWord, ...]:
    """Return the words of a prompt that could name something, in order; the first 256 KiB are read."""
    return tuple(
        PromptWord(
            str(item["text"]),
            str(item.get("kind", "")),
            str(item.get("name", "")),
            str(item.get("why", "")),
        )
        for item in json.loads(_native.prompt_names(prompt))
    )


def prompt_words(prompt: str) -> tuple[str | None, ...]:
    """Return the words of a prompt that a task keeps, in order; `None` for a gap between them."""
    return tuple(json.loads(_native.prompt_words(prompt)))


@dataclass(frozen=True, slots=True)
class PromptValue:
    """A value of which somebody asks whether a prompt names it."""

    value: str
    """The value: `email:bob@acme.example`, or `<collection>/<id>`."""
    named: bool
    """Whether the prompt names it."""
    error: str
    """Defect of a value that no prompt can name; empty for others."""


def prompt_values(prompt: str, values: Sequence[str]) -> tuple[PromptValue, ...]:
    """Return for each value whether a prompt names it, in the same order."""
    return tuple(
        PromptValue(str(item["value"]), bool(item["named"]), str(item.get("error", "")))
        for item in json.loads(_native.prompt_values(prompt, list(values)))
    )


def format_policy(text: str, file: str) -> str:
    """Format a Cedar file.

    Args:
        text: The file's content.
        file: The file's name, for messages.

    Raises:
        BundleError: The text is not valid Cedar.
    """
    with bundle_errors():
        return _native.format_policy(text, file)


def bundle_digest(bundle: BundleFiles) -> str:
    """Return the digest of a bundle in hex, also of one that does not compile."""
    return _native.bundle_digest(dict(bundle.files))


def bundle_variables(bundle: BundleFiles) -> list[str]:
    """Return the names of `${…}` in the files of a bundle, sorted."""
    return _native.bundle_variables(dict(bundle.files))


def bundle_schema() -> str:
    """Return the JSON Schema of bundle files, as text."""
    return _native.bundle_schema()


def case_schema() -> str:
    """Return the JSON Schema of case files, as text."""
    return _native.case_schema()


def seal_catalog(document: Mapping[str, Any]) -> dict[str, Any]:
    """Compute digests and operations of an MCP server's tools.

    Args:
        document: `system`, `server`, `origin` and `tools`, as in a catalog file.

    Returns:
        `digest`, and `tools` with `name`, `operation`, `digest`, `opened` each.

    Raises:
        UsageError: The document is not valid, or two tools have the same operation.
    """
    try:
        text = json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
        sealed: dict[str, Any] = json.loads(_native.seal_catalog(text))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the tools cannot be read: {error}") from error
    return sealed


def spiffe_covers(pattern: str, spiffe_id: str) -> bool:
    """Return whether a pattern of SPIFFE ids covers an id, as a role's entry covers its agents."""
    return _native.spiffe_covers(pattern, spiffe_id)
