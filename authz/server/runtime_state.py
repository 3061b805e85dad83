"""What serves, and how it is replaced: bundle, keys and listeners as one world, swapped whole or not at all."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol

from authz.bundle import CompiledBundle, compile_bundle, read_folder
from authz.config import Config
from authz.engine import DirectoryEntries, ListenerRules, PeerRules, Plan, Trust
from authz.errors import AuthzError, BundleError, ConfigError, EngineError, TrustError
from authz.files import check_way
from authz.model import BundleFiles, Diagnostic, Directory, Reloaded, RuleChanges
from authz.server.static_secrets import StaticSecrets, credential_settings
from authz.server.trust_sequences import TrustSequences
from authz.telemetry import Logger, Metrics
from authz.trust import SourceKey, place_of, read_trust, trust_spec, withdrawn

__all__ = ["FetchedDirectory", "LoadTarget", "RuntimeState", "Snapshot"]

_MAX_DIAGNOSTICS: Final = 100
_MAX_SAID: Final = 1000


class LoadTarget(Protocol):
    """The engine, as far as loading needs it."""

    def load(
        self,
        plan: Plan,
        trust: Trust,
        listeners: Sequence[ListenerRules],
        peers: Sequence[PeerRules],
        credentials: Mapping[str, Any] | None = None,
        *,
        directories: Mapping[str, float] | None = None,
        fetched: Mapping[str, DirectoryEntries] | None = None,
    ) -> None:
        """Swap in a new world."""


@dataclass(frozen=True, slots=True)
class FetchedDirectory:
    """A directory as it was fetched last."""

    url: str
    """Where from."""
    column: str | None
    """The column that was read."""
    digest: bytes
    """SHA-256 of what was fetched."""
    entries: DirectoryEntries
    """Who is in it."""
    at: float
    """When; Unix time."""

    def is_of(self, directory: Directory) -> bool:
        """Tell whether it is what a bundle means.

        Args:
            directory: The bundle's.

        Returns:
            Whether it is from there.
        """
        return (self.url, self.column) == (directory.url, directory.column)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How the world stands: a value, replaced whole."""

    plan: Plan | None = None
    """The bundle that serves."""
    trust: Trust | None = None
    """The keys that serve."""
    loaded_at: float = 0.0
    """When it was loaded; Unix time."""
    rules: RuleChanges = field(default_factory=RuleChanges)
    """What became of the progress of its rules when it was loaded."""
    refused: tuple[Diagnostic, ...] = ()
    """Why the last load was refused; empty where it was not."""
    bundle_files: BundleFiles | None = field(default=None, repr=False)
    """Files of the bundle that serves."""
    trust_spec: bytes = field(default=b"", repr=False)
    """Trust sources that serve."""
    read_spec: bytes = field(default=b"", repr=False)
    """Trust sources as they were read last; a bundle that was refused as older is among them."""
    older: frozenset[str] = frozenset()
    """Trust domains whose bundle was refused as older than one that was used before."""
    documents: Mapping[SourceKey, str] = field(default_factory=dict, repr=False)
    """The keys of each source that serve."""
    files_read_at: float = 0.0
    """When those that are files were last read; Unix time."""
    directories: Mapping[str, float] = field(default_factory=dict, repr=False)
    """When the file of each directory was last changed, or it was fetched, as the engine knows; Unix time."""
    fetched: Mapping[str, FetchedDirectory] = field(default_factory=dict, repr=False)
    """Directories that were fetched."""
    own_keys: str | None = field(default=None, repr=False)
    """The keys by which our own credentials are verified; none where none are issued."""


class RuntimeState:
    """Loads, and says how it stands.

    Args:
        config: Where bundle and keys are.
        engine: Where a new world is swapped in.
        rules: What the engine knows about each listener.
        peers: What it knows about each enforcer that shows a certificate.
        injections: Standing secrets, where task credentials are issued.
        sequences: Knows which bundles of trust domains were used before; none: that is not kept.
        metrics: Counts loads.
        log: Says what came of them.
        clock: Unix time.
    """

    def __init__(
        self,
        config: Config,
        engine: LoadTarget,
        rules: Sequence[ListenerRules],
        *,
        peers: Sequence[PeerRules] = (),
        injections: StaticSecrets | None = None,
        sequences: TrustSequences | None = None,
        metrics: Metrics,
        log: Logger,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._engine = engine
        self._rules = tuple(rules)
        self._peers = tuple(peers)
        self._injections = injections
        self._has_new_secrets = False
        self._sequences = sequences
        self._least: Mapping[str, int] | None = {}
        self._knows_sequences = True
        self._metrics = metrics
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._snapshot = Snapshot()
        # What the file of each directory says of when it was changed, and from when on it counts.
        self._seen: dict[str, tuple[float, float]] = {}
        self._told: Callable[[Plan], object] = lambda _: None

    @property
    def snapshot(self) -> Snapshot:
        """How the world stands now."""
        return self._snapshot

    @property
    def watched(self) -> tuple[Path, ...]:
        """Folders and files whose change asks for a reload."""
        trust = self._config.trust
        files = [domain.bundle.file for domain in trust.domains.values()]
        files += [issuer.jwks.file for issuer in trust.issuers.values()]
        secrets = self._injections.files if self._injections is not None else ()
        named = (Path(file) for file in files if file is not None)
        return (Path(self._config.bundle.path), *named, *secrets)

    def follow(self, told: Callable[[Plan], object]) -> None:
        """Tell somebody of each bundle that serves from now on.

        Args:
            told: Called with it; must not wait, nor ask anything of the world.
        """
        self._told = told

    def load(self) -> None:
        """Load for the first time.

        Raises:
            AuthzError: Bundle or keys are refused; nothing serves.
        """
        with self._lock:
            if self._sequences is not None:
                self._least = self._sequences.read()
            self._load()
            self._knows_sequences = self._least is not None

    def problems(self) -> tuple[str, ...]:
        """Tell what is wrong with how the newest bundles of trust domains are kept.

        Returns:
            One line each.
        """
        return self._sequences.problems() if self._sequences is not None else ()

    @property
    def knows_sequences(self) -> bool:
        """Whether it is known which bundles of trust domains were used before; until then none that counts is used."""
        return self._knows_sequences

    def keep_sequences(self) -> None:
        """Do what the store could not do: read which bundles were used before, and note which are used now.

        Raises:
            AuthzError: The keys are refused; those before go on serving.
        """
        if self._sequences is None:
            return
        if not self._knows_sequences:
            with self._lock:
                self._least = self._sequences.read()
                if self._least is not None and self._snapshot.plan is not None:
                    # Nothing that counts was accepted until now: there is nothing to go on from, and the files are
                    # read once more, since what was refused was not kept.
                    files = read_trust(self._config).documents
                    documents = {**self._snapshot.documents, **files}
                    self._swap_keys(documents, None, is_first=True)
                    self._knows_sequences = True
        self._sequences.keep()

    def reload(self) -> Reloaded:
        """Load again, all or nothing.

        Whatever goes wrong is a refusal: nothing that lies in a folder may stop a node that serves.

        Returns:
            What came of it; a refusal leaves the world as it was.
        """
        with self._lock:
            before = self._snapshot.plan
            try:
                changed = self._load()
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001 - a panic of the engine is no Exception
                return self._refuse(error)
            plan = self._snapshot.plan
            if plan is None:
                return Reloaded(changed=changed, revision="")
            return Reloaded(changed, plan.revision, rules=plan.rule_changes(before))

    def current(self, key: SourceKey) -> str | None:
        """Give the keys of a source that serve.

        Args:
            key: The source.

        Returns:
            Its document; none where there never was one.
        """
        return self._snapshot.documents.get(key)

    def renew(self, key: SourceKey, document: str) -> bool:
        """Put fetched keys in the place of those that serve; the bundle stays.

        Args:
            key: Whose.
            document: The keys.

        Returns:
            Whether anything changed.

        Raises:
            AuthzError: The keys are refused; those before go on serving.
        """
        with self._lock:
            before = self._snapshot
            if before.documents.get(key) == document:
                return False
            self._swap_keys({**before.documents, key: document}, key)
            return True

    def drop(self, key: SourceKey) -> None:
        """Take the keys of a source away.

        Args:
            key: Whose.
        """
        with self._lock:
            documents = self._snapshot.documents
            self._swap_keys({**documents, key: withdrawn(documents.get(key, ""))}, key)

    def publish(self, own_keys: str) -> None:
        """Verify our own credentials by these keys from now on; before the first load: once that is done.

        Args:
            own_keys: A JWKS.

        Raises:
            AuthzError: The keys are refused; those before go on serving.
        """
        with self._lock:
            if self._snapshot.plan is None:
                self._snapshot = replace(self._snapshot, own_keys=own_keys)
            else:
                self._swap_keys(self._snapshot.documents, None, own_keys)

    def put_directory(self, directory: Directory, digest: bytes, entries: DirectoryEntries) -> bool:
        """Put a directory that was fetched in the place of the one before.

        Args:
            directory: As the bundle that it was fetched for has it; nothing happens where the one that serves has another.
            digest: SHA-256 of what was fetched.
            entries: Who is in it.

        Returns:
            Whether it says something else than before.
        """
        with self._lock:
            before = self._snapshot
            if before.plan is None or not _has(before.plan, directory):
                return False
            url, column = directory.url, directory.column
            new = FetchedDirectory(url, column, digest, entries, self._clock())
            known = before.fetched.get(directory.name)
            self._swap_fetched({**before.fetched, directory.name: new})
            return known is None or known.digest != digest

    def drop_directory(self, directory: Directory) -> None:
        """Forget a directory that was fetched.

        Args:
            directory: As the bundle has it that it was fetched for.
        """
        with self._lock:
            fetched = dict(self._snapshot.fetched)
            known = fetched.get(directory.name)
            if known is not None and known.is_of(directory):
                del fetched[directory.name]
                self._swap_fetched(fetched)

    def _swap_fetched(self, fetched: Mapping[str, FetchedDirectory]) -> None:
        before = self._snapshot
        if before.plan is None or before.trust is None:
            raise EngineError("no bundle is loaded")
        directories = {
            name: at for name, at in before.directories.items() if name not in before.fetched
        }
        directories |= {name: one.at for name, one in fetched.items()}
        self._swap(before.plan, before.trust, directories, fetched)
        self._snapshot = replace(before, directories=directories, fetched=fetched)

    def _swap_keys(
        self,
        documents: Mapping[SourceKey, str],
        key: SourceKey | None,
        own_keys: str | None = None,
        *,
        is_first: bool = False,
    ) -> None:
        before = self._snapshot
        if before.plan is None:
            raise EngineError("no bundle is loaded")
        own_keys = own_keys if own_keys is not None else before.own_keys
        spec = trust_spec(self._config, documents, own_keys, self._least)
        trust = Trust.compile(spec, None if is_first else before.trust)
        if key is not None and any(
            domain.rolled_back
            for domain in trust.domains
            if key == SourceKey("domain", domain.name)
        ):
            at = place_of(self._config, key)
            raise TrustError((_older(key, at, is_known=self._least is not None),))
        self._swap(before.plan, trust, before.directories, before.fetched)
        documents, spec = self._in_use(documents, spec, trust, own_keys)
        self._snapshot = replace(
            before,
            trust=trust,
            trust_spec=spec,
            read_spec=spec,
            older=_older_of(trust) if is_first else before.older - {key.name if key else ""},
            documents=documents,
            own_keys=own_keys,
        )
        if self._sequences is not None:
            self._sequences.note(trust)
        known = before.trust.warnings if before.trust is not None else ()
        with suppress(Exception):
            for warning in trust.warnings:
                if warning not in known:
                    self._log.warning("keys have a warning", warning=warning)

    def _refuse(self, error: BaseException) -> Reloaded:
        diagnostics = _diagnostics(error)[:_MAX_DIAGNOSTICS]
        self._snapshot = replace(self._snapshot, refused=diagnostics)
        plan = self._snapshot.plan
        serving = plan.revision if plan is not None else ""
        # It is kept above; a log that cannot be written must not lose it.
        with suppress(Exception):
            self._metrics.reloaded("failure")
            self._log.error(
                f"reload refused; bundle {serving or '(none)'} goes on serving",
                diagnostics=[str(diagnostic) for diagnostic in diagnostics[:10]],
                exc_info=None if isinstance(error, AuthzError) else error,
            )
        return Reloaded(changed=False, revision=serving, diagnostics=diagnostics, failed=True)

    def _swap(
        self,
        plan: Plan,
        trust: Trust,
        directories: Mapping[str, float],
        fetched: Mapping[str, FetchedDirectory],
    ) -> None:
        settings, injections = self._config.credentials, self._injections
        told = None
        if settings is not None and injections is not None:
            told = credential_settings(settings, injections)
        self._engine.load(
            plan,
            trust,
            self._rules,
            self._peers,
            told,
            directories=directories,
            fetched={name: one.entries for name, one in fetched.items()},
        )
        self._has_new_secrets = False

    def _renew_secrets(self) -> bool:
        """Read the standing secrets; they do not wait for a bundle that is refused."""
        if self._injections is None:
            return False
        if self._injections.refresh():
            self._has_new_secrets = True
        snapshot = self._snapshot
        if not self._has_new_secrets or snapshot.plan is None or snapshot.trust is None:
            return False
        self._swap(snapshot.plan, snapshot.trust, snapshot.directories, snapshot.fetched)
        with suppress(Exception):
            self._log.info("standing secrets were read again")
        return True

    def _load(self) -> bool:
        renewed = self._renew_secrets()
        config, before = self._config, self._snapshot
        now = self._clock()
        files = read_trust(config)
        # Those that are fetched stay as they are.
        documents = {**before.documents, **files.documents}
        spec = trust_spec(config, documents, before.own_keys, self._least)
        _check_bundle_way(Path(config.bundle.path))
        bundle = read_folder(
            Path(config.bundle.path),
            max_bytes=config.limits.bundle_max_bytes,
            max_files=config.limits.bundle_max_files,
            served=before.bundle_files,
        )
        if before.plan is not None and (before.bundle_files, before.read_spec) == (
            bundle,
            spec,
        ):
            changed = self._changed_at(before.plan, before.fetched, now)
            if before.trust is not None and changed != before.directories:
                self._swap(before.plan, before.trust, changed, before.fetched)
            self._snapshot = replace(before, refused=(), files_read_at=now, directories=changed)
            self._metrics.reloaded("unchanged")
            return renewed
        trust = Trust.compile(spec, before.trust)
        compiled = compile_bundle(bundle, config.vars, int(now * 1000), before.plan)
        fetched = {
            directory.name: known
            for directory in compiled.plan.directories
            if (known := before.fetched.get(directory.name)) and known.is_of(directory)
        }
        changed = self._changed_at(compiled.plan, fetched, now)
        self._swap(compiled.plan, trust, changed, fetched)
        in_use, used = self._in_use(documents, spec, trust, before.own_keys)
        self._snapshot = Snapshot(
            plan=compiled.plan,
            trust=trust,
            loaded_at=now,
            rules=compiled.plan.rule_changes(before.plan),
            bundle_files=bundle,
            trust_spec=used,
            read_spec=spec,
            older=_older_of(trust),
            documents=in_use,
            files_read_at=now,
            directories=changed,
            fetched=fetched,
            own_keys=before.own_keys,
        )
        self._told(compiled.plan)
        if self._sequences is not None:
            self._sequences.note(trust)
        # It serves; a log that cannot be written must not say otherwise.
        with suppress(Exception):
            self._tell(compiled, trust, now)
        return True

    def _in_use(
        self,
        documents: Mapping[SourceKey, str],
        spec: bytes,
        trust: Trust,
        own_keys: str | None,
    ) -> tuple[Mapping[SourceKey, str], bytes]:
        """Put what serves in the place of bundles that were refused as older.

        Whoever reads the documents, or compiles them for another purpose, must not meet a bundle that was refused.
        """
        refused = [SourceKey("domain", one.name) for one in trust.domains if one.rolled_back]
        if not refused:
            return documents, spec
        before = self._snapshot.documents
        used = {**documents, **{key: before.get(key, withdrawn("")) for key in refused}}
        return used, trust_spec(self._config, used, own_keys, self._least)

    def _changed_at(
        self, plan: Plan, fetched: Mapping[str, FetchedDirectory], now: float
    ) -> dict[str, float]:
        """Tell when the file of each directory was last changed, or it was fetched.

        One whose file is gone, or that was not fetched, is left out.
        """
        found, seen = {name: one.at for name, one in fetched.items()}, {}
        for directory in plan.directories:
            if directory.url:
                continue
            with suppress(OSError, ValueError):
                said = (Path(self._config.bundle.path) / directory.file).stat().st_mtime
                known, counted = self._seen.get(directory.file, (None, 0.0))
                # What comes from the future grows old from when it was first seen, and no reload renews it.
                at = counted if known == said else min(said, now)
                found[directory.name] = at
                seen[directory.file] = said, at
        self._seen = seen
        return found

    def _tell(self, compiled: CompiledBundle, trust: Trust, now: float) -> None:
        plan = compiled.plan
        self._metrics.reloaded("success", at=now)
        self._metrics.bundle(plan.name, plan.revision, plan.digest)
        for warning in (*map(str, plan.warnings), *trust.warnings):
            self._log.warning("loaded with a warning", warning=warning)
        self._log.info(
            "loaded",
            bundle=plan.name,
            revision=plan.revision,
            digest=plan.digest,
            policies=plan.policy_count,
            operations=plan.operation_count,
            tests=compiled.tests.passed,
            trust=trust.revision,
            rules=asdict(self._snapshot.rules),
        )


def _older_of(trust: Trust) -> frozenset[str]:
    return frozenset(domain.name for domain in trust.domains if domain.rolled_back)


def _older(key: SourceKey, place: str, *, is_known: bool) -> Diagnostic:
    if not is_known:
        what = (
            f"whether the bundle of {key} is older than one that was used before is not known yet."
        )
        return Diagnostic(
            what, place, mend="It is tried again once the store of tasks can be read."
        )
    what = (
        f"the bundle of {key} has a lower `spiffe_sequence` than one that was used before, or none."
    )
    mend = (
        "What serves goes on serving. Where the publisher began to count anew, raise "
        f"`trust.domains.{key.name}.bundle.sequence_epoch` and restart."
    )
    return Diagnostic(what, place, mend=mend)


def _has(plan: Plan, directory: Directory) -> bool:
    return any(
        (one.name, one.url, one.column) == (directory.name, directory.url, directory.column)
        for one in plan.directories
    )


def _diagnostics(error: BaseException) -> tuple[Diagnostic, ...]:
    if isinstance(error, (BundleError, ConfigError, TrustError)):
        return error.diagnostics
    if isinstance(error, AuthzError):
        return (Diagnostic(str(error)),)
    # A text that is not UTF-8, such as a file name's, could not be told over the API.
    said = f"{type(error).__name__}: {error}".encode(errors="backslashreplace").decode()
    what = f"the reload failed inside the server: {said[:_MAX_SAID].removesuffix(': ')}."
    return (Diagnostic(what, mend="See the log."),)


def _check_bundle_way(folder: Path) -> None:
    """Refuse a bundle that everybody could replace: who writes it says what is permitted."""
    try:
        check_way(folder / "bundle.yaml", strict=False)
    except OSError as error:
        # That it is missing is told where it is read.
        if isinstance(error, PermissionError):
            raise BundleError((Diagnostic(f"{error.strerror}.", str(folder)),)) from error
