"""What a prompt names, by the command and the extension; the tables of docs/reference/prompt.md are the kernel's test."""

import json

import pytest
from typer.testing import CliRunner

from authz.cli import application
from authz.engine import prompt_names, prompt_values, prompt_words
from authz.errors import UsageError

PROMPT = "Answer bob@acme.example at https://acme.example/t/7. Never write to eve@evil.example, or and/or."


def test_a_prompt_is_read_word_by_word() -> None:
    """Names with kind and form, others with the reason."""
    found = {one.text: (one.kind, one.name, one.why) for one in prompt_names(PROMPT)}
    assert found == {
        "bob@acme.example": ("email", "bob@acme.example", ""),
        "https://acme.example/t/7": ("url", "https://acme.example/t/7", ""),
        "eve@evil.example": ("email", "eve@evil.example", "its sentence has a negation"),
        "and/or": (
            "",
            "",
            (
                "a path begins with `/` or `~/`, ends in `/` or in a file name like `q3.csv`, "
                "or stands between backticks"
            ),
        ),
    }
    assert prompt_names("") == ()


def test_amounts_ids_and_hosts_are_read() -> None:
    """Each with its kind; what has no certain meaning has a reason."""
    prompt = "Pay €870 for invoice 4711 from acme.example, not 5 kroner, as in notes.md"
    assert [(one.kind, one.name, bool(one.why)) for one in prompt_names(prompt)] == [
        ("amount", "EUR 870", False),
        ("id", "invoice 4711", False),
        ("url", "https://acme.example/", False),
        ("", "", True),
        ("", "", True),
    ]


@pytest.mark.parametrize("given", [PROMPT, "-"])
def test_the_command_shows_what_was_read_and_what_was_not(given: str) -> None:
    """As JSON for programs, the prompt as an argument or on standard input."""
    run = CliRunner().invoke(
        application(), ["task", "names", given, "--format", "json"], input=PROMPT
    )

    assert run.exit_code == 0, run.output
    told = json.loads(run.stdout)
    assert [one["name"] for one in told["names"]] == [
        "bob@acme.example",
        "https://acme.example/t/7",
    ]
    assert [one["text"] for one in told["unnamed"]] == ["eve@evil.example", "and/or"]


def test_the_command_says_that_nothing_is_named() -> None:
    """A prompt of plain words."""
    run = CliRunner().invoke(application(), ["task", "names", "Summarize the news"])

    assert run.exit_code == 0, run.output
    assert "The prompt names nothing." in run.output


def test_words_are_kept_in_order_with_gaps() -> None:
    """A quotation or the end of a sentence is a gap."""
    words = prompt_words("Cancel the Team sync. Never ask Eve. Go")
    assert words == ("Cancel", "the", "Team", "sync", None, "Go")


def test_a_value_is_named_or_not() -> None:
    """By its form, or by its words beside the noun of the collection."""
    told = prompt_values(
        "Pay €870 for order 4711",
        ["amount:EUR 870", "orders/4711", "invoices/4711", "email:bob@acme.example", "bob"],
    )
    assert [one.named for one in told] == [True, True, False, False, False]
    assert [bool(one.error) for one in told] == [False, False, False, False, True]


@pytest.mark.parametrize(
    ("value", "code", "shown"),
    [("orders/4711", 0, "named"), ("orders/12", 1, "not named")],
)
def test_the_command_tells_of_a_value_whether_it_is_named(
    value: str, code: int, shown: str
) -> None:
    """With an exit code for scripts."""
    run = CliRunner().invoke(
        application(), ["task", "names", "Cancel order 4711", "--value", value]
    )

    assert (run.exit_code, shown in run.output) == (code, True), run.output


def test_the_command_refuses_a_value_that_no_prompt_can_name() -> None:
    """The message says what to write."""
    run = CliRunner().invoke(application(), ["task", "names", "Cancel it", "--value", "4711"])

    assert isinstance(run.exception, UsageError)
    assert "`<collection>/<id>`" in str(run.exception)
