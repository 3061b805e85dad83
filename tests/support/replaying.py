"""Logs of engines that are asked for the calls of case files, to replay them."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path

from authz import _native
from authz.engine import EnforcerRules, ListenerRules, Plan, default_settings
from authz.model import BundleFiles, CallFacts
from tests.support import cases
from tests.support.cases import BUNDLES, VARIABLES, Flat
from tests.support.minting import Authority
from tests.support.server import bundle_files, trust_spec
from tests.support.surfaces import ENCODINGS, check_request, envoy_request, mint

CASES = cases.load()


def compiled(files: Mapping[str, bytes]) -> Plan:
    """Compiles a changed bundle."""
    return Plan.compile(BundleFiles("changed", files), VARIABLES)


@cache
def plan(bundle: str) -> Plan:
    """Compiles a bundle of the case files."""
    return compiled(bundle_files(BUNDLES / bundle))


def listeners() -> bytes:
    """Returns the listeners that the case files name."""
    rules = [
        ListenerRules("main", insecure_dev=True, surfaces=None),
        ListenerRules(
            "crm-only", enforcer=EnforcerRules("crm-server", asks=("system:crm",)), surfaces=None
        ),
        ListenerRules("none", surfaces=None),
    ]
    return json.dumps([asdict(listener) for listener in rules]).encode()


def ask(engine: _native.Engine, case: Flat, authority: Authority) -> None:
    """Asks for a call of a case file, by name and as Envoy does."""
    tokens = mint(authority, case)
    if case.step.call is not None:
        engine.check(check_request(case, tokens), CallFacts(case.step.listener))
    if case.step.http is not None:
        for encoding in ENCODINGS:
            request = envoy_request(case, tokens, encoding)
            if request is not None:
                engine.envoy_check(request, CallFacts(case.step.listener))


def log_of(
    judge: Plan, bundle: str, authority: Authority, folder: Path, shadow: Plan | None = None
) -> list[bytes]:
    """Returns the log of an engine that is asked for every call of a bundle's case files."""
    folder.mkdir()
    log = folder / "audit.jsonl"
    engine = _native.Engine(json.dumps(default_settings(str(log))).encode())
    trust = _native.Trust.compile(trust_spec(authority))
    beside = None if shadow is None else shadow.native
    engine.load(judge.native, trust, listeners(), b"[]", shadow=beside)
    for case in CASES:
        if case.bundle == bundle:
            ask(engine, case, authority)
    engine.close()
    return log.read_bytes().splitlines(keepends=True)
