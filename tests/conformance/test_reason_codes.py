"""Each reason code is reached by a case, or by a test that brings about its cause, or cannot be reached yet."""

import re
from pathlib import Path

from authz_client.v1 import decision_pb2
from tests.support import cases
from tests.support.surfaces import reason_rows

#: Codes whose cause no case file can say: the test that brings it about.
BY_TEST = {
    "AUDIT_FULL": "integration/test_failures.py",
    "DEADLINE": "integration/test_failures.py",
    "OVERLOADED": "integration/test_failures.py",
    "UNAVAILABLE": "integration/test_failures.py",
    "REVOKED": "integration/test_revoke.py",
    "IDEMPOTENCY_CONFLICT": "integration/test_tasks.py",
    "STATE_UNAVAILABLE": "integration/test_shared_state.py",
    "STORE_SLOW": "integration/test_shared_state.py",
}

#: Codes that nothing can reach in this version, and why.
NOT_REACHABLE = {
    "NEEDS_PROVIDER": "a bundle with a provider is refused",
}

ROWS = reason_rows()
_STEPS = [step for *_, case in cases.traces() for step in case.steps or []]
REACHED = {
    *(case.step.wanted.code for case in cases.load()),
    *(step.wanted.code for step in _STEPS if step.call or step.http),
    *(step.wanted_task.code for step in _STEPS if not (step.call or step.http)),
} - {None, "OK"}


def test_every_code_has_a_place() -> None:
    """A code that is added must be given a case, a test, or a reason why not."""
    assert set(ROWS) == REACHED | BY_TEST.keys() | NOT_REACHABLE.keys()


def test_no_code_is_called_unreachable_that_is_reached() -> None:
    """A list of excuses that outlives its reasons hides missing cases."""
    assert set() == (REACHED | BY_TEST.keys()) & NOT_REACHABLE.keys()


def test_codes_of_tests_are_named_there() -> None:
    """The test that a code points to speaks of it."""
    folder = Path(__file__).parents[1]
    for code, file in BY_TEST.items():
        assert re.search(rf"\b{code}\b", (folder / file).read_text()), (code, file)


def test_only_one_code_permits() -> None:
    """Every other row is a refusal on every surface."""
    permits = [name for name, row in ROWS.items() if row.public_code == "PERMIT"]
    assert permits == ["PERMITTED"]
    for name, row in ROWS.items():
        if name != "PERMITTED":
            assert row.grpc_code != 0, name
            assert 400 <= row.http_status < 600, name


def test_the_zero_outcome_is_no_permit() -> None:
    """A decision that nobody filled in is not read as a permit."""
    assert decision_pb2.Decision().outcome != decision_pb2.OUTCOME_PERMIT
