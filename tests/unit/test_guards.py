"""`guards` of the configuration: files of keys that the engine gets with the trust sources."""

import json
from pathlib import Path

import pytest

from authz.config import load
from authz.errors import ConfigError, TrustError
from authz.trust.sources import read_trust, trust_spec

BASE = """
bundle: {path: bundle}
identity: {audiences: [authz]}
listeners: {main: {address: "127.0.0.1:0", insecure_dev: true}}
audit: {path: audit.jsonl}
"""


def test_the_keys_of_a_guard_reach_the_engine(tmp_path: Path) -> None:
    """By the guard's name, with the file for messages."""
    keys = tmp_path / "scanner.jwks"
    keys.write_text('{"keys": []}')
    config = tmp_path / "config.yaml"
    config.write_text(f"{BASE}guards: {{scanner: {{keys: {keys}}}}}\n")
    loaded = load(config, {}, working_folder=tmp_path)
    spec = json.loads(trust_spec(loaded, read_trust(loaded)))
    assert spec["guards"] == {"scanner": {"keys": '{"keys": []}', "from": str(keys)}}
    keys.unlink()
    with pytest.raises(TrustError, match="guard `scanner`"):
        read_trust(loaded)


def test_without_guards_the_trust_sources_stay_as_they_were(tmp_path: Path) -> None:
    """So that the digest of the keys does not change."""
    config = tmp_path / "config.yaml"
    config.write_text(BASE)
    loaded = load(config, {}, working_folder=tmp_path)
    assert "guards" not in json.loads(trust_spec(loaded, read_trust(loaded)))


def test_guards_need_an_audience(tmp_path: Path) -> None:
    """A statement is meant for one service."""
    config = tmp_path / "config.yaml"
    text = BASE.replace("identity: {audiences: [authz]}\n", "")
    config.write_text(f"{text}guards: {{scanner: {{keys: /x.jwks}}}}\n")
    with pytest.raises(ConfigError, match=r"`guards` needs `identity\.audiences`"):
        load(config, {}, working_folder=tmp_path)
