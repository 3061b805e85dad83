"""Checks that show a task credential beside the same Checks that show a JWT-SVID, in this process on one thread.

`python -m bench.load.redeeming SPEC` reads a `bench.load.checks.Spec` as JSON and prints what it measured as JSON. Both halves
are on tasks and change state: one reserves, the other redeems what was reserved. Each token was verified before.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from authz.config import Credentials, Lifetimes, SigningAlgorithm
from authz.engine import Engine
from authz.model import Surface
from authz.signing import FolderKeys, SigningKey, mint
from authz_client.v1 import credentials_pb2, decision_pb2
from bench.load import bundle, checks, credentials

ISSUER = "https://authz.bench.example"
_HOUR = 3600.0
_LIFETIMES = Lifetimes(low=_HOUR, standard=_HOUR, high=_HOUR, critical=_HOUR)
SETTINGS = {
    **Credentials(issuer=ISSUER, lifetime=_LIFETIMES).engine_settings(),
    "static_secrets": {},
}


def measure(spec: checks.Spec) -> dict[str, list[dict[str, Any]]]:
    """Measures both kinds of Check.

    Args:
        spec: what is measured.

    Returns:
        `rows` and `ratios` as of `bench.load.checks`, of the one kind `credential`.

    Raises:
        CheckError: a Check was not permitted, or did not reserve or redeem.
    """
    folder = Path(spec.folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = bundle.write(folder / "bundle", spec.policies, tasks=True)
    minted = credentials.mint(folder / "trust", spec.tasks)
    key = FolderKeys(folder / "keys").generate(SigningAlgorithm.ES256)
    own = {"issuer": ISSUER, "keys": json.dumps({"keys": [key.jwk]})}
    engine = checks.engine(spec, folder, written, minted, own=own, issuing=SETTINGS)
    try:
        started = checks.started(engine, minted)
        operations = [one for one in written.operations if one not in written.stateless]
        plain = checks.requests(operations, minted, started, subjects=False)
        checks.half(engine, plain, len(plain), len(plain))
        found = []
        for _ in range(spec.pairs):
            shown = _shown(engine, plain, spec.calls, key)
            _warm(engine, shown, operations)
            found.append(
                (
                    checks.half(engine, plain, spec.calls, spec.calls),
                    checks.half(engine, shown, spec.calls, 0),
                )
            )
    finally:
        engine.close()
    return {
        "rows": checks.rows(spec.state, "credential", found),
        "ratios": checks.ratios(spec.state, "credential", found),
    }


def _shown(engine: Engine, plain: Sequence[bytes], count: int, key: SigningKey) -> list[bytes]:
    """The same requests, each with a credential of its own in place of the agent's SVID."""
    built = []
    for index in range(count):
        request = decision_pb2.CheckRequest.FromString(plain[index % len(plain)])
        request.wants_credential = True
        answer = engine.check(request.SerializeToString(), checks.FACTS)
        decision = checks.permitted(answer)
        issue = credentials_pb2.IssueRequest(
            evidence=request.evidence, decision_id=decision.decision_id
        )
        issued = json.loads(
            engine.call(Surface.CREDENTIAL_ISSUE, issue.SerializeToString(), checks.FACTS)
        )
        request.wants_credential = False
        request.evidence[0].token = mint(issued["claims"], key)
        built.append(request.SerializeToString())
    return built


def _warm(engine: Engine, shown: Sequence[bytes], operations: Sequence[str]) -> None:
    """Show each credential to another system: it is verified, refused for its audience, and changes nothing."""
    for raw in shown:
        request = decision_pb2.CheckRequest.FromString(raw)
        system = request.operation.partition(".")[0]
        request.operation = next(one for one in operations if one.partition(".")[0] != system)
        engine.check(request.SerializeToString(), checks.FACTS)


if __name__ == "__main__":
    checks.main(measure)
