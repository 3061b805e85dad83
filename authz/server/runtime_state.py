"""The state that serves: it loads bundle, keys and recipient lists, and replaces them whole or not at all.

INVARIANT (one snapshot): the engine is given a new state first, and `snapshot` is replaced only after the engine took it. So
the snapshot never shows a bundle or a key that does not serve.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from authz.bundle import CompiledBundle, compile_bundle, read_folder
from authz.config import Config
from authz.engine import ListenerRules, PeerRules, Plan, RecipientListEntries, Trust
from authz.errors import AuthzError, EngineError, TrustError
from authz.model import BundleFiles, RecipientList, Reloaded
from authz.server.recipient_list_ages import RecipientListAges
from authz.server.refusals import check_bundle_way, diagnostics_of, older_bundle
from authz.server.refused_loads import RefusalLog, RefusedLoads
from authz.server.shadow import ShadowBundle
from authz.server.snapshot import FetchedRecipientList, Snapshot
from authz.server.static_secrets import StaticSecrets, credential_settings
from authz.server.trust_sequences import TrustSequences
from authz.telemetry import Logger, Metrics
from authz.trust import SourceKey, place_of, read_trust, trust_spec, withdrawn

__all__ = ["LoadTarget", "RuntimeState"]

_MAX_LOGGED: Final = 10


class LoadTarget(RefusalLog, Protocol):
    """The part of the engine that loads."""

    def load(
        self,
        plan: Plan,
        trust: Trust,
        listeners: Sequence[ListenerRules],
        peers: Sequence[PeerRules],
        credentials: Mapping[str, Any] | None = None,
        *,
        recipient_lists: Mapping[str, float] | None = None,
        fetched: Mapping[str, RecipientListEntries] | None = None,
        shadow: Plan | None = None,
    ) -> None:
        """Replace bundle, keys and rules at once."""


@dataclass(frozen=True, slots=True)
class _Sources:
    """Files of a load, as they were read."""

    bundle: BundleFiles
    documents: Mapping[SourceKey, str]
    """Keys by trust source, of fetched sources too."""
    spec: bytes
    """Trust sources, as JSON of the engine."""


class RuntimeState:
    """Loads bundle and keys, and keeps the snapshot of those that serve.

    Args:
        config: Places of bundle and keys.
        engine: Is given each new state.
        rules: Rules of each listener.
        peers: Rules of each enforcer that shows a certificate.
        secrets: Static secrets, where task credentials are issued.
        sequences: Knows which bundles of trust domains were used before. `None`: that is not kept.
        metrics: Counts loads.
        log: Receives the result of each load.
        clock: Unix time.
    """

    def __init__(
        self,
        config: Config,
        engine: LoadTarget,
        rules: Sequence[ListenerRules],
        *,
        peers: Sequence[PeerRules] = (),
        secrets: StaticSecrets | None = None,
        sequences: TrustSequences | None = None,
        metrics: Metrics,
        log: Logger,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._engine = engine
        self._rules = tuple(rules)
        self._peers = tuple(peers)
        self._secrets = secrets
        self._has_new_secrets = False
        self._sequences = sequences
        self._least: Mapping[str, int] | None = {}
        self._knows_sequences = True
        self._metrics = metrics
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._snapshot = Snapshot()
        self._shadow = ShadowBundle(config, metrics, log, clock)
        self._has_new_shadow = False
        self._ages = RecipientListAges(Path(config.bundle.path))
        self._followers: list[Callable[[Plan], object]] = []
        self._refused_loads = RefusedLoads(engine) if config.audit.chain else None
        self._read_bundle: BundleFiles | None = None

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot that serves now."""
        return self._snapshot

    @property
    def watched(self) -> tuple[Path, ...]:
        """Folders and files whose change must cause a reload."""
        trust = self._config.trust
        files = [domain.bundle.file for domain in trust.domains.values()]
        files += [issuer.jwks.file for issuer in trust.issuers.values()]
        secrets = self._secrets.files if self._secrets is not None else ()
        paths = (Path(file) for file in files if file is not None)
        shadow = self._shadow.folder
        folders = (shadow,) if shadow is not None else ()
        return (Path(self._config.bundle.path), *folders, *paths, *secrets)

    def follow(self, follower: Callable[[Plan], object]) -> None:
        """Call a function with each bundle that serves from now on. It must not wait, nor call this object."""
        self._followers.append(follower)

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

    @property
    def shadow(self) -> ShadowBundle:
        """The shadow bundle."""
        return self._shadow

    def problems(self) -> tuple[str, ...]:
        """Return one line for each problem with keeping the newest bundles of trust domains."""
        return self._sequences.problems() if self._sequences is not None else ()

    @property
    def knows_sequences(self) -> bool:
        """Whether the store has told which bundles of trust domains were used before.

        Until then, no bundle with a `spiffe_sequence` is used.
        """
        return self._knows_sequences

    def keep_sequences(self) -> None:
        """Read which bundles were used before and write which are in use, if the store failed to do so.

        Raises:
            AuthzError: The keys are refused. The keys before stay in use.
        """
        if self._sequences is None:
            return
        if not self._knows_sequences:
            with self._lock:
                self._least = self._sequences.read()
                if self._least is not None and self._snapshot.plan is not None:
                    # No bundle with a sequence was accepted until now. The files are read once more, since refused
                    # bundles were not kept.
                    files = read_trust(self._config)
                    documents = {**self._snapshot.documents, **files}
                    self._swap_keys(documents, None, is_first=True)
                    self._knows_sequences = True
        self._sequences.keep()

    def reload(self) -> Reloaded:
        """Load again, all or nothing.

        Every failure is a refusal: no content of a folder may stop a node that serves.

        Returns:
            The result. A refusal leaves the state as it was.
        """
        with self._lock:
            before = self._snapshot.plan
            try:
                changed = self._load()
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001 - a panic of the engine is not an Exception
                return self._refuse(error)
            if self._refused_loads is not None:
                self._refused_loads.clear()
            plan = self._snapshot.plan
            if plan is None:
                return Reloaded(changed=changed, revision="")
            return Reloaded(changed, plan.revision, rules=plan.rule_changes(before))

    def current(self, key: SourceKey) -> str | None:
        """Return the keys of a source that serve; `None` where there were never any."""
        return self._snapshot.documents.get(key)

    def renew(self, key: SourceKey, document: str) -> bool:
        """Replace the keys of a source by fetched ones. The bundle stays.

        Returns:
            Whether the keys changed.

        Raises:
            AuthzError: The keys are refused. The keys before stay in use.
        """
        with self._lock:
            before = self._snapshot
            if before.documents.get(key) == document:
                return False
            self._swap_keys({**before.documents, key: document}, key)
            return True

    def drop(self, key: SourceKey) -> None:
        """Remove the keys of a source."""
        with self._lock:
            documents = self._snapshot.documents
            self._swap_keys({**documents, key: withdrawn(documents.get(key, ""))}, key)

    def publish(self, own_keys: str) -> None:
        """Verify this node's own credentials by a JWKS from now on, or from the first load on.

        Raises:
            AuthzError: The keys are refused. The keys before stay in use.
        """
        with self._lock:
            if self._snapshot.plan is None:
                self._snapshot = replace(self._snapshot, own_keys=own_keys)
            else:
                self._swap_keys(self._snapshot.documents, None, own_keys)

    def put_recipient_list(
        self, recipient_list: RecipientList, digest: bytes, entries: RecipientListEntries
    ) -> bool:
        """Replace the entries of a recipient list by fetched ones.

        Args:
            recipient_list: The recipient list, of the bundle for which it was fetched. Nothing happens if the bundle that serves names
                another URL or other columns.
            digest: SHA-256 of the fetched document.
            entries: The entries.

        Returns:
            Whether the document changed.
        """
        with self._lock:
            before = self._snapshot
            if before.plan is None or not _has(before.plan, recipient_list):
                return False
            new = FetchedRecipientList(
                recipient_list.url,
                recipient_list.column,
                recipient_list.alias,
                digest,
                entries,
                self._clock(),
            )
            replaced = before.fetched.get(recipient_list.name)
            self._swap_fetched({**before.fetched, recipient_list.name: new})
            return replaced is None or replaced.digest != digest

    def drop_recipient_list(self, recipient_list: RecipientList) -> None:
        """Remove the entries of a recipient list that was fetched for a bundle."""
        with self._lock:
            fetched = dict(self._snapshot.fetched)
            dropped = fetched.get(recipient_list.name)
            if dropped is not None and dropped.is_of(recipient_list):
                del fetched[recipient_list.name]
                self._swap_fetched(fetched)

    def _swap_fetched(self, fetched: Mapping[str, FetchedRecipientList]) -> None:
        before = self._snapshot
        if before.plan is None or before.trust is None:
            raise EngineError("no bundle is loaded")
        recipient_lists = {
            name: at for name, at in before.recipient_lists.items() if name not in before.fetched
        }
        recipient_lists |= {name: recipient_list.at for name, recipient_list in fetched.items()}
        self._swap(before.plan, before.trust, recipient_lists, fetched)
        self._snapshot = replace(before, recipient_lists=recipient_lists, fetched=fetched)

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
        if key in _older_of(trust):
            at = place_of(self._config, key)
            raise TrustError((older_bundle(key, at, is_known=self._least is not None),))
        self._swap(before.plan, trust, before.recipient_lists, before.fetched)
        documents, spec = self._in_use(documents, spec, trust, own_keys)
        self._snapshot = replace(
            before,
            trust=trust,
            trust_spec=spec,
            read_spec=spec,
            older=_older_of(trust) if is_first else before.older - {key},
            documents=documents,
            own_keys=own_keys,
        )
        if self._sequences is not None:
            self._sequences.note(trust)
        logged = before.trust.warnings if before.trust is not None else ()
        with suppress(Exception):
            for warning in trust.warnings:
                if warning not in logged:
                    self._log.warning("keys have a warning", warning=warning)

    def _refuse(self, error: BaseException) -> Reloaded:
        diagnostics = diagnostics_of(error)
        self._snapshot = replace(self._snapshot, refused=diagnostics)
        plan = self._snapshot.plan
        serving = plan.revision if plan is not None else ""
        # The snapshot has the refusal already: a log that cannot be written must not lose it.
        with suppress(Exception):
            self._metrics.reloaded("failure")
            self._log.error(
                f"reload refused; bundle {serving or '(none)'} stays in use",
                diagnostics=[str(diagnostic) for diagnostic in diagnostics[:_MAX_LOGGED]],
                exc_info=None if isinstance(error, AuthzError) else error,
            )
        with suppress(Exception):
            if self._refused_loads is not None:
                self._refused_loads.note(error, diagnostics, self._read_bundle)
        return Reloaded(changed=False, revision=serving, diagnostics=diagnostics, failed=True)

    def _swap(
        self,
        plan: Plan,
        trust: Trust,
        recipient_lists: Mapping[str, float],
        fetched: Mapping[str, FetchedRecipientList],
    ) -> None:
        settings, credentials = self._config.credentials, None
        if settings is not None and self._secrets is not None:
            credentials = credential_settings(settings, self._secrets)
        self._engine.load(
            plan,
            trust,
            self._rules,
            self._peers,
            credentials,
            recipient_lists=recipient_lists,
            fetched={name: recipient_list.entries for name, recipient_list in fetched.items()},
            shadow=self._shadow.plan,
        )
        self._has_new_secrets = False
        self._has_new_shadow = False

    def _renew_secrets(self) -> bool:
        """Read the static secrets; they do not wait for a bundle that is refused."""
        if self._secrets is None:
            return False
        if self._secrets.refresh():
            self._has_new_secrets = True
        snapshot = self._snapshot
        if not self._has_new_secrets or snapshot.plan is None or snapshot.trust is None:
            return False
        self._swap(snapshot.plan, snapshot.trust, snapshot.recipient_lists, snapshot.fetched)
        with suppress(Exception):
            self._log.info("static secrets were read again")
        return True

    def _renew_shadow(self) -> bool:
        """Read the shadow bundle; it does not wait for a bundle that is refused, and no refusal of it refuses another."""
        if self._shadow.refresh():
            self._has_new_shadow = True
        snapshot = self._snapshot
        if not self._has_new_shadow or snapshot.plan is None or snapshot.trust is None:
            return False
        self._swap(snapshot.plan, snapshot.trust, snapshot.recipient_lists, snapshot.fetched)
        return True

    def _load(self) -> bool:
        renewed = self._renew_secrets()
        renewed = self._renew_shadow() or renewed
        now, read = self._clock(), self._read()
        if self._is_served(read):
            self._keep(now)
            return renewed
        self._replace(read, now)
        return True

    def _read(self) -> _Sources:
        """Read the bundle and the trust sources that are files."""
        config, before = self._config, self._snapshot
        self._read_bundle = None
        # Fetched keys stay as they are.
        documents = {**before.documents, **read_trust(config)}
        spec = trust_spec(config, documents, before.own_keys, self._least)
        check_bundle_way(Path(config.bundle.path))
        bundle = read_folder(
            Path(config.bundle.path),
            max_bytes=config.limits.bundle_max_bytes,
            max_files=config.limits.bundle_max_files,
            served=before.bundle_files,
            require_manifest=config.bundle.require_manifest,
        )
        self._read_bundle = bundle
        return _Sources(bundle, documents, spec)

    def _is_served(self, read: _Sources) -> bool:
        before = self._snapshot
        served = (before.bundle_files, before.read_spec)
        return before.plan is not None and served == (read.bundle, read.spec)

    def _keep(self, now: float) -> None:
        """Keep bundle and keys; the files of recipient lists may be newer."""
        before = self._snapshot
        if before.plan is None:
            raise EngineError("no bundle is loaded")
        changed = self._ages.read(before.plan.recipient_lists, before.fetched, now)
        if before.trust is not None and changed != before.recipient_lists:
            self._swap(before.plan, before.trust, changed, before.fetched)
        self._snapshot = replace(before, refused=(), files_read_at=now, recipient_lists=changed)
        self._metrics.reloaded("unchanged")

    def _replace(self, read: _Sources, now: float) -> None:
        """Compile bundle and keys, and serve them. Recipient lists that were fetched stay."""
        before = self._snapshot
        trust = Trust.compile(read.spec, before.trust)
        compiled = compile_bundle(read.bundle, self._config.vars, int(now * 1000), before.plan)
        plan = compiled.plan
        fetched = {
            recipient_list.name: known
            for recipient_list in plan.recipient_lists
            if (known := before.fetched.get(recipient_list.name)) and known.is_of(recipient_list)
        }
        changed = self._ages.read(plan.recipient_lists, fetched, now)
        self._swap(plan, trust, changed, fetched)
        in_use, used = self._in_use(read.documents, read.spec, trust, before.own_keys)
        self._snapshot = Snapshot(
            plan=plan,
            trust=trust,
            loaded_at=now,
            rules=plan.rule_changes(before.plan),
            bundle_files=read.bundle,
            trust_spec=used,
            read_spec=read.spec,
            older=_older_of(trust),
            documents=in_use,
            files_read_at=now,
            recipient_lists=changed,
            fetched=fetched,
            own_keys=before.own_keys,
        )
        for follower in self._followers:
            follower(plan)
        if self._sequences is not None:
            self._sequences.note(trust)
        # The load succeeded: a log that cannot be written must not make it fail.
        with suppress(Exception):
            self._log_load(compiled, trust, now)

    def _in_use(
        self,
        documents: Mapping[SourceKey, str],
        spec: bytes,
        trust: Trust,
        own_keys: str | None,
    ) -> tuple[Mapping[SourceKey, str], bytes]:
        """Replace bundles that were refused as older by those in use.

        The snapshot must not hold a refused bundle: other parts compile its documents for their own purposes.
        """
        refused = _older_of(trust)
        if not refused:
            return documents, spec
        before = self._snapshot.documents
        used = {**documents, **{key: before.get(key, withdrawn("")) for key in refused}}
        return used, trust_spec(self._config, used, own_keys, self._least)

    def _log_load(self, compiled: CompiledBundle, trust: Trust, now: float) -> None:
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


def _older_of(trust: Trust) -> frozenset[SourceKey]:
    return frozenset(
        SourceKey("domain", domain.name) for domain in trust.domains if domain.rolled_back
    )


def _has(plan: Plan, recipient_list: RecipientList) -> bool:
    return any(
        (own.name, own.url, own.column, own.alias)
        == (recipient_list.name, recipient_list.url, recipient_list.column, recipient_list.alias)
        for own in plan.recipient_lists
    )
