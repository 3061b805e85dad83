"""A shadow bundle beside the one that serves: counted on every listener, recorded, shown, and without a part in answers."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz_client.v1 import admin_pb2
from tests.support.cases import BUNDLES
from tests.support.minting import Authority
from tests.support.people import People, envoy_search, search
from tests.support.server import Server, layout
from tests.support.surfaces import CHECK, ENVOY, LANES, decision_of, outcome

NO_SEARCH = (
    '@id("no-search") forbid(principal, action == Action::"crm.search", resource)\n'
    'when { context.input.query == "x" };\n'
)


@pytest.fixture
def server(authority: Authority, tmp_path: Path) -> Iterator[Server]:
    """A server whose shadow bundle forbids a search."""
    shutil.copytree(BUNDLES / "desk", tmp_path / "next")
    (tmp_path / "next/policies/shadow.cedar").write_text(NO_SEARCH)
    changes = {"shadow": {"bundle": str(tmp_path / "next")}}
    with Server(layout(tmp_path / "node", authority, "desk", changes)) as running:
        yield running


def results(server: Server) -> dict[str, float]:
    """Reads the counters of results that are not zero."""
    name = "authz_shadow_decisions_total"
    counts = {labels["result"]: value for found, labels, value in server.samples() if found == name}
    assert set(counts) == {
        "equal",
        "newly_permitted",
        "newly_held",
        "newly_denied",
        "not_compared",
    }
    return {result: count for result, count in counts.items() if count}


def test_every_decision_is_compared_and_answered_as_before(
    server: Server, authority: Authority, tmp_path: Path
) -> None:
    """Both lanes and both protocols count; a shadow bundle that is refused later changes nothing."""
    people = People.of(authority)
    for lane in LANES:
        answer = decision_of(server.call(f"main{lane}", CHECK, search(people.bot)))
        assert outcome(answer) == "PERMIT"
        server.call(f"main{lane}", ENVOY, envoy_search(people.bot))
        assert outcome(decision_of(server.call(f"main{lane}", CHECK, search(None)))) == "DENY"
    assert results(server) == {"newly_denied": 2 * len(LANES), "not_compared": len(LANES)}

    (tmp_path / "next/policies/shadow.cedar").write_text("this is no policy")
    reloaded = server.call("admin", "authz.v1.Admin/Reload", b"")
    assert list(admin_pb2.ReloadResponse.FromString(reloaded).diagnostics) == []
    assert outcome(decision_of(server.call("main", CHECK, search(people.bot)))) == "PERMIT"
    detail = server.readiness()
    assert any("shadow bundle refused" in problem for problem in detail["problems"])
    assert detail["shadow"]["digest"] == detail["engine"]["shadow"]["digest"]
    assert detail["shadow"]["refused"]
    assert server.metric("authz_shadow_load_total", result="failure") == 1
    server.close()
    different = [one["result"]["shadow"] for one in server.records() if "shadow" in one["result"]]
    assert len(different) == 2 * len(LANES) + 1
    assert {(one["outcome"], one["rules"][0]["name"]) for one in different} == {
        ("DENY", "no-search")
    }
