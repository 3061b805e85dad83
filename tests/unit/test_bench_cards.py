"""The cards' benchmark: its operators change what they say, and the figures of one domain hold."""

import pytest

from bench.cards.measure import card_of, is_told, measure_operator, measure_ordinary, table
from bench.cards.operators import OPERATORS, mutants
from bench.cards.ordinary import OrdinaryCall, ordinary_calls


@pytest.fixture(scope="module")
def calls() -> list[OrdinaryCall]:
    """Ordinary calls of the domain with payments."""
    return ordinary_calls("banking")


def test_ordinary_cards_have_no_warning(calls: list[OrdinaryCall]) -> None:
    """Some of the calls are ones that a person is asked about."""
    found = measure_ordinary(calls)
    assert found["cards"] >= 40
    assert found["asked"] >= 5
    assert found["pairs"] >= 80
    assert (found["flagged"], found["flagged_repeated"], found["flagged_pairs"]) == (0, 0, 0)


def test_every_operator_has_calls_and_a_rate(calls: list[OrdinaryCall]) -> None:
    """Where the original is not needed, each tampered card warns."""
    rows = [measure_operator(operator, calls) for operator in OPERATORS]
    assert len({row["operator"] for row in rows}) == len(OPERATORS) >= 12
    with_calls = [row for row in rows if row["cards"]]
    assert len(with_calls) >= 20
    assert not [
        row for row in with_calls if not row["needs_reference"] and row["told"] < row["cards"]
    ]
    rates = {row["operator"]: row for row in with_calls}
    for name in (
        "iban-near",
        "times-ten",
        "decimal-point",
        "currency",
        "same-looking",
        "near-host",
    ):
        assert rates[name]["told_repeated"] == rates[name]["cards"] > 0
    text = table({"ordinary": measure_ordinary(calls), "operators": rows})
    assert len(text) == len(OPERATORS) + 8


def test_a_tampered_call_counts_only_if_the_ordinary_card_does_not_warn(
    calls: list[OrdinaryCall],
) -> None:
    """An ordinary call is never told from itself."""
    operator = next(one for one in OPERATORS if one.name == "bidi")
    call, changed = next(mutants(operator, calls))
    ordinary = card_of(call, call.arguments, call.last)
    assert not is_told(ordinary, ordinary)
    assert is_told(card_of(call, changed, call.last), ordinary)
