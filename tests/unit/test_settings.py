"""Settings of the engine: Python owns names, defaults and bounds, and gives the engine every one of them."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from authz.config import Config, load, parse_assignment
from authz.engine import (
    EnforcerRules,
    Engine,
    FastLane,
    ListenerRules,
    PeerRules,
    Plan,
    Trust,
    engine_settings,
)
from authz.engine.native_errors import engine_errors
from authz.errors import ConfigError, EngineError
from authz.model import BundleFiles, Surface
from authz.telemetry.traces import TraceSettings
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
    """The engine accepts every value that the configuration allows; the configuration refuses the others."""
    default, least, most = values
    assert engine_settings(read(tmp_path))[setting] == default
    for value in values:
        settings = engine_settings(read(tmp_path, f"{key}={value}"))
        assert settings[setting] == value
        Engine(settings).close()
    for wrong in (str(least - 1), str(most + 1), "true", "many"):
        with pytest.raises(ConfigError, match=key):
            read(tmp_path, f"{key}={wrong}")


def test_the_treatment_of_a_full_audit_queue_reaches_the_engine(tmp_path: Path) -> None:
    """The default denies. The engine takes each word of the configuration, and the configuration refuses every other word."""
    assert engine_settings(read(tmp_path))["audit_on_full"] == "deny"
    for word in ("deny", "block", "drop"):
        settings = engine_settings(read(tmp_path, f"audit.on_full={word}"))
        assert settings["audit_on_full"] == word
        Engine(settings).close()
    for word in ("ignore", "Deny", "true", "''"):
        with pytest.raises(ConfigError, match=r"audit\.on_full"):
            read(tmp_path, f"audit.on_full={word}")
    with pytest.raises(EngineError, match="`deny`, `block`, `drop`"):
        Engine({**engine_settings(read(tmp_path)), "audit_on_full": "ignore"})


@pytest.mark.parametrize(
    ("assignments", "milliseconds"),
    [
        ((), 200),
        (("state.revocation_staleness=500ms",), 100),
        (("state.revocation_staleness=5m",), 200),
        (("state.revocation_staleness=2m", "state.poll_interval=60s"), 60_000),
    ],
)
def test_a_node_asks_well_before_it_is_stale(
    tmp_path: Path, assignments: tuple[str, ...], milliseconds: int
) -> None:
    """The interval at which a node asks for changes follows the staleness, unless the configuration says otherwise."""
    shared = ("state.engine=postgresql", "state.dsn=postgresql://127.0.0.1/x")
    settings = engine_settings(read(tmp_path, *shared, *assignments))
    assert settings["state"]["poll_interval_ms"] == milliseconds


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


def names_of(refusal: str) -> set[str]:
    """Return the names that the extension lists where it refuses an unknown one."""
    _, expected, names = refusal.partition("expected")
    assert expected, refusal
    return set(re.findall(r"`([a-z_]+)`", names))


def traced(folder: Path) -> dict[str, Any]:
    """Return the settings of an engine with traces."""
    return engine_settings(read(folder), trace=TraceSettings("otlp").engine())


@pytest.mark.parametrize("section", ["", "state", "trace"])
def test_every_setting_of_the_engine_is_given(tmp_path: Path, section: str) -> None:
    """A setting that only the extension had would have its default there, where nobody could change it."""
    settings = traced(tmp_path)
    given = settings[section] if section else settings
    names = set(given)
    given["no_such_setting"] = 0
    with pytest.raises(EngineError, match="no_such_setting") as refusal:
        Engine(settings)
    assert names == names_of(str(refusal.value))


@pytest.mark.parametrize("section", ["", "state", "trace"])
def test_the_engine_has_no_default(tmp_path: Path, section: str) -> None:
    """The configuration's defaults are the only ones: the engine refuses settings that lack one."""
    complete = traced(tmp_path)
    for name in complete[section] if section else complete:
        settings = copy.deepcopy(complete)
        del (settings[section] if section else settings)[name]
        with pytest.raises(EngineError, match=f"missing field `{name}`"):
            Engine(settings)


def test_every_setting_of_the_fast_lane_is_given(tmp_path: Path) -> None:
    """Its listeners have no settings of their own but names, addresses and files."""
    given = read(tmp_path).limits.fast_lane_settings()
    engine = Engine(engine_settings(read(tmp_path)))
    with pytest.raises(EngineError, match="no_such_setting") as refusal:
        FastLane(engine, {"no_such_setting": 0, **given})
    engine.close()
    assert {*given, "listeners", "connections"} == names_of(str(refusal.value))


CREDENTIALS = """\
trust: {domains: {a.example: {bundle: {file: b}}}}
identity: {audiences: [authz]}
credentials: {issuer: "https://authz.example"}
"""


@pytest.mark.parametrize("section", ["", "lifetime", "dpop"])
def test_every_setting_of_credentials_is_given(tmp_path: Path, section: str) -> None:
    """The static secrets come from files, and stand beside them."""
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG + CREDENTIALS)
    config = load(file, {}, working_folder=tmp_path)
    assert config.credentials is not None
    settings = {**config.credentials.engine_settings(), "static_secrets": {}}
    given = settings[section] if section else settings
    names = set(given)
    given["no_such_setting"] = 0
    engine = Engine(engine_settings(config))
    plan = Plan.compile(BundleFiles("bundle", {"bundle.yaml": b"name: empty\n"}), {})
    trust = Trust.compile(json.dumps({"audiences": [], "domains": {}, "issuers": {}}).encode())
    with pytest.raises(EngineError, match="no_such_setting") as refusal:
        engine.load(plan, trust, [], [], settings)
    engine.close()
    assert names == names_of(str(refusal.value))


LISTENER = ListenerRules("main", enforcer=EnforcerRules("tools", asks=("system:*",)), surfaces=None)
PEER = PeerRules("tools", "spiffe://a.example/tools", ("system:*",))


@pytest.mark.parametrize("kind", ["listener", "enforcer", "peer"])
def test_every_rule_of_a_listener_is_given(tmp_path: Path, kind: str) -> None:
    """A rule that is lost could open a listener: without `mutual`, callers need no certificate."""
    engine = Engine(engine_settings(read(tmp_path)))
    plan = Plan.compile(BundleFiles("bundle", {"bundle.yaml": b"name: empty\n"}), {})
    trust = Trust.compile(json.dumps({"audiences": [], "domains": {}, "issuers": {}}).encode())
    listener, peer = asdict(LISTENER), asdict(PEER)
    rules: dict[str, Any] = {
        "listener": listener,
        "enforcer": listener["enforcer"],
        "peer": peer,
    }[kind]
    complete = dict(rules)

    def load() -> None:
        listeners, peers = json.dumps([listener]).encode(), json.dumps([peer]).encode()
        with engine_errors():
            engine.native.load(plan.native, trust.native, listeners, peers, None, {}, {})

    load()
    for name, value in complete.items():
        del rules[name]
        with pytest.raises(EngineError, match=f"missing field `{name}`"):
            load()
        rules[name] = value
    rules["no_such_rule"] = 0
    with pytest.raises(EngineError, match="no_such_rule") as refusal:
        load()
    assert set(complete) == names_of(str(refusal.value))
    engine.close()
