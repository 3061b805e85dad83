"""A real Prometheus on loopback, in a folder of its own, that scrapes one server."""

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Self

import yaml

from tests.support.tools import find
from tests.support.waiting import eventually, free_port


class Prometheus:
    """One Prometheus process.

    Args:
        folder: Where its files go.
        target: Port of the `/metrics` that it scrapes.
    """

    def __init__(self, folder: Path, target: int) -> None:
        self._program = find("prometheus")
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "prometheus.yaml").write_text(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"},
                    "scrape_configs": [
                        {
                            "job_name": "authz",
                            "static_configs": [{"targets": [f"127.0.0.1:{target}"]}],
                        }
                    ],
                }
            )
        )

    def __enter__(self) -> Self:
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    str(self._program),
                    f"--config.file={self._folder / 'prometheus.yaml'}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            eventually(lambda: self.query("up == 1"), what="Prometheus scrapes")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def query(self, text: str) -> list[tuple[dict[str, str], float]]:
        """Evaluates PromQL now; returns labels and value of each sample."""
        address = f"http://127.0.0.1:{self._port}/api/v1/query"
        data = urllib.parse.urlencode({"query": text}).encode()
        try:
            with urllib.request.urlopen(address, data, timeout=10) as answer:
                found: dict[str, Any] = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            error.close()
            raise
        assert found["status"] == "success", found
        result: list[dict[str, Any]] = found["data"]["result"]
        return [(one["metric"], float(one["value"][1])) for one in result]
