"""The shadow bundle: read and compiled beside the bundle that serves, which it never disturbs."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from authz.bundle import compile_bundle, read_folder
from authz.config import Config
from authz.engine import Plan
from authz.errors import AuthzError
from authz.server.refusals import check_bundle_way, diagnostics_of
from authz.telemetry import Logger, Metrics

if TYPE_CHECKING:
    from authz.model import BundleFiles, Diagnostic

__all__ = ["ShadowBundle"]

_MAX_SHOWN: Final = 10


class ShadowBundle:
    """Reads the shadow bundle of the configuration, and keeps the last version that compiled and passed its tests.

    Only `refresh` changes it; the caller holds a lock.

    Args:
        config: Place of the bundle; without `shadow` there is no shadow bundle.
        metrics: Counts loads.
        log: Receives the result of each load.
        clock: Unix time.
    """

    def __init__(
        self, config: Config, metrics: Metrics, log: Logger, clock: Callable[[], float]
    ) -> None:
        self._config = config
        self._metrics = metrics
        self._log = log
        self._clock = clock
        self._files: BundleFiles | None = None
        self._refused: tuple[Diagnostic, ...] = ()
        self._loaded_at = 0.0
        self._plan: Plan | None = None
        if config.shadow is not None:
            metrics.expect_shadow()

    @property
    def folder(self) -> Path | None:
        """Folder of the bundle. `None`: there is no shadow bundle."""
        shadow = self._config.shadow
        return Path(shadow.bundle) if shadow is not None else None

    @property
    def plan(self) -> Plan | None:
        """The last bundle that compiled. `None`: no bundle compiled, or there is no shadow bundle."""
        return self._plan

    def refresh(self) -> bool:
        """Read and compile the bundle again, if its files changed.

        A refusal changes nothing: the shadow bundle before stays.

        Returns:
            Whether there is another plan.
        """
        folder = self.folder
        if folder is None:
            return False
        before = self._plan
        try:
            self._load(folder)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - a panic of the engine is not an Exception
            self._refuse(error)
        return self._plan is not before

    def _load(self, folder: Path) -> None:
        config = self._config
        check_bundle_way(folder)
        files = read_folder(
            folder,
            max_bytes=config.limits.bundle_max_bytes,
            max_files=config.limits.bundle_max_files,
            served=self._files,
            require_manifest=config.bundle.require_manifest,
        )
        if files == self._files and self._plan is not None:
            self._refused = ()
            return
        now = self._clock()
        compiled = compile_bundle(files, config.vars, int(now * 1000), self._plan)
        self._plan, self._files = compiled.plan, files
        self._loaded_at, self._refused = now, ()
        with suppress(Exception):
            self._metrics.shadow_loaded("success")
            self._log.info(
                "shadow bundle loaded",
                bundle=compiled.plan.name,
                revision=compiled.plan.revision,
                digest=compiled.plan.digest,
            )

    def _refuse(self, error: BaseException) -> None:
        refused = diagnostics_of(error)
        is_known, self._refused = refused == self._refused, refused
        # The refusal is kept already: a log that cannot be written must not lose it.
        with suppress(Exception):
            self._metrics.shadow_loaded("failure")
            if not is_known:
                self._log.error(
                    "shadow bundle refused; the bundle that serves stays as it is",
                    diagnostics=[str(diagnostic) for diagnostic in refused[:_MAX_SHOWN]],
                    exc_info=None if isinstance(error, AuthzError) else error,
                )

    def detail(self) -> Mapping[str, Any]:
        """Return the shadow bundle as JSON values."""
        plan = self._plan
        return {
            "path": str(self.folder or ""),
            "bundle": plan.name if plan is not None else "",
            "revision": plan.revision if plan is not None else "",
            "digest": plan.digest if plan is not None else "",
            "loaded_at": datetime.fromtimestamp(self._loaded_at, UTC).isoformat()
            if plan is not None
            else "",
            "refused": [str(diagnostic) for diagnostic in self._refused[:_MAX_SHOWN]],
        }

    def problems(self) -> tuple[str, ...]:
        """Return one line if the newest files of the shadow bundle are refused."""
        if not self._refused:
            return ()
        kept = "the one before stays" if self._plan is not None else "there is none"
        return (f"shadow bundle refused, {kept}: {self._refused[0]}",)
