"""What the engine is told of the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from authz.config import Config, load, parse_assignment
from authz.engine import Engine, engine_settings
from authz.errors import ConfigError
from authz.model import Surface
from authz.thirdparty.envoy.service.auth.v3 import external_auth_pb2

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """\
bundle: {path: bundle}
listeners:
  main: {address: "127.0.0.1:0", insecure_dev: true}
audit: {path: audit.jsonl}
"""


def read(folder: Path, *assignments: str) -> Config:
    """Load the configuration with assignments."""
    file = folder / "config.yaml"
    file.write_text(CONFIG)
    return load(file, {}, [parse_assignment(one) for one in assignments], working_folder=folder)


@pytest.mark.parametrize(
    ("key", "setting", "values"),
    [
        ("limits.probe_rate", "probe_rate", (100, 0, 1_000_000)),
        ("limits.probe_burst", "probe_burst", (200, 0, 1_000_000)),
        ("audit.queue", "audit_queue_lines", (65_536, 16, 10_000_000)),
        ("audit.queue_bytes", "audit_queue_bytes", (67_108_864, 65_536, 17_179_869_184)),
    ],
)
def test_a_limit_reaches_the_engine(
    tmp_path: Path, key: str, setting: str, values: tuple[int, int, int]
) -> None:
    """Whatever the configuration allows, the engine takes; what it does not is refused before."""
    default, least, most = values
    assert engine_settings(read(tmp_path))[setting] == default
    for value in values:
        settings = engine_settings(read(tmp_path, f"{key}={value}"))
        assert settings[setting] == value
        Engine(settings).close()
    for wrong in (str(least - 1), str(most + 1), "true", "many"):
        with pytest.raises(ConfigError, match=key):
            read(tmp_path, f"{key}={wrong}")


def overloaded(settings: dict[str, Any]) -> external_auth_pb2.CheckResponse:
    """Ask an engine for what Envoy is answered when there is no room."""
    engine = Engine(settings)
    try:
        data = engine.refusal(Surface.EXT_AUTHZ, "OVERLOADED")
    finally:
        engine.close()
    return external_auth_pb2.CheckResponse.FromString(data)


def test_failures_are_denials_unless_errors_are_asked_for(tmp_path: Path) -> None:
    """No setting of the proxy turns a denial into a permit; with errors, the operator chose that one may."""
    denial = overloaded(engine_settings(read(tmp_path)))
    error = overloaded(engine_settings(read(tmp_path, "envoy.error_response=true")))

    assert denial.WhichOneof("http_response") == "denied_response"
    assert error.WhichOneof("http_response") == "error_response"
    assert denial.status.code == error.status.code != 0


@pytest.mark.parametrize("value", ["1", "yes please", "[]"])
def test_errors_are_asked_for_in_so_many_words(tmp_path: Path, value: str) -> None:
    """Anything but true or false is refused."""
    with pytest.raises(ConfigError, match=r"envoy\.error_response"):
        read(tmp_path, f"envoy.error_response={value}")
