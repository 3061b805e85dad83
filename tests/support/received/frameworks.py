"""Web frameworks as their users run them, each in a process of its own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from tests.support.tools import frameworks as libraries
from tests.support.waiting import accepts, eventually, free_port

APPS: Final = Path(__file__).with_name("apps")

Command = Callable[[int], list[str] | None]


@dataclass(frozen=True)
class Framework:
    """A web framework.

    Args:
        name: How tests name it.
        merges: Whether a handler finds a parameter in one place, wherever in the request it stood.
        command: Returns the command that serves on a port, or None where a program is missing.
    """

    name: str
    merges: bool
    command: Command


def _rack(port: int) -> list[str] | None:
    puma = shutil.which("puma")
    if puma is None:
        return None
    bind = f"tcp://127.0.0.1:{port}"
    return [puma, "--bind", bind, "--threads", "4:4", "--quiet", str(APPS / "config.ru")]


def _express(_: int) -> list[str] | None:
    node = shutil.which("node")
    if node is None or libraries() is None:
        return None
    return [node, str(APPS / "app.mjs")]


def _flask(port: int) -> list[str] | None:
    folder = libraries()
    if folder is None:
        return None
    gunicorn = [str(folder / "python/bin/gunicorn"), "--no-control-socket"]
    return [
        *gunicorn,
        "--bind",
        f"127.0.0.1:{port}",
        "--threads",
        "4",
        "--chdir",
        str(APPS),
        "flask_app:app",
    ]


def _starlette(port: int) -> list[str] | None:
    uvicorn = [sys.executable, "-m", "uvicorn", "--port", str(port), "--log-level", "warning"]
    return [*uvicorn, "--app-dir", str(APPS), "starlette_app:app"]


FRAMEWORKS: Final = (
    Framework("rack", merges=True, command=_rack),
    Framework("express", merges=True, command=_express),
    Framework("flask", merges=True, command=_flask),
    Framework("starlette", merges=False, command=_starlette),
)


class Running:
    """The frameworks that this machine has.

    Args:
        folder: Where their logs go.
        routes: Method and template of each route.
    """

    def __init__(self, folder: Path, routes: Iterable[tuple[str, str]]) -> None:
        self.ports: dict[str, int] = {}
        self._folder = folder
        self._routes = json.dumps(sorted(set(routes)))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            for framework in FRAMEWORKS:
                port = free_port()
                command = framework.command(port)
                if command is not None:
                    self.ports[framework.name] = port
                    self._start(framework.name, command, self._environment(port))
            for name, port in self.ports.items():
                self._wait(name, port)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the processes."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)

    def log(self, name: str) -> str:
        """Returns what a framework wrote."""
        return self._log(name).read_text(errors="replace")

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _environment(self, port: int) -> Mapping[str, str]:
        library = libraries()
        own = {"PORT": str(port), "ROUTES": self._routes, "PYTHONDONTWRITEBYTECODE": "1"}
        return {**os.environ, **own, "LIBRARIES": str(library / "npm") if library else ""}

    def _start(self, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        with self._log(name).open("wb") as log:
            self._processes[name] = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=self._folder
            )

    def _wait(self, name: str, port: int) -> None:
        def is_up() -> bool:
            if self._processes[name].poll() is not None:
                raise RuntimeError(f"{name} ended:\n{self.log(name)}")
            return accepts(port)

        eventually(is_up, what=f"{name} is up")
