"""The solver cvc5 as a process: reads SMT-LIB commands from standard input and writes each answer to standard output.

`authz-analyze` starts `python -m authz.analysis.solver`, since the wheel of cvc5 brings its library and its parser, but no
program. The process answers an unusable command with `(error "…")` and ends: the answers after it would be to other questions
than the reader expects.

Requires the extra `analyze`.
"""

import argparse
import re
import resource
import sys
from collections.abc import Iterator
from typing import Final, TextIO

__all__ = ["batches", "commands", "main", "version"]

MAX_COMMAND_BYTES: Final = 64 * 1024 * 1024
"""Longest command in characters. A longer one ends the process."""
_QUESTIONS: Final = ("(check-", "(get-", "(echo", "(exit")
_QUOTES: Final = frozenset('"|')
# A quote that nothing closes on its line is a token of one character.
_TOKEN: Final = re.compile(r""""[^"]*"|\|[^|]*\||;.*|[()"|]""")
DEFAULT_LIMIT_MS: Final = 10_000
DEFAULT_MEMORY_MB: Final = 2048


class CommandTooLongError(Exception):
    """A command exceeds MAX_COMMAND_BYTES, or its brackets never close."""


def commands(lines: Iterator[str]) -> Iterator[str]:
    """Split SMT-LIB text into commands: texts whose brackets are balanced.

    Brackets in strings, quoted symbols and comments do not count (SMT-LIB 2.6 §3.1).

    Args:
        lines: Lines of the text.

    Raises:
        CommandTooLongError: A command is longer than MAX_COMMAND_BYTES.
    """
    parts: list[str] = []
    length = depth = 0
    quote = ""
    for line in lines:
        change, quote = _balance(line, quote)
        depth += change
        length += len(line)
        parts.append(line)
        if length > MAX_COMMAND_BYTES:
            raise CommandTooLongError(f"a command is longer than {MAX_COMMAND_BYTES} characters")
        if depth <= 0 and not quote:
            command = "".join(parts)
            parts.clear()
            length = depth = 0
            if command.strip():
                yield command


def batches(each: Iterator[str]) -> Iterator[str]:
    """Join commands up to one that asks for an answer: cvc5 reads a text much faster than its lines.

    A reset is a batch of its own, and so is the rest at the end.

    Args:
        each: Commands.

    Raises:
        CommandTooLongError: Commands without a question are longer than MAX_COMMAND_BYTES.
    """
    parts: list[str] = []
    length = 0
    for command in each:
        text = command.strip()
        is_reset = text == "(reset)"
        if not is_reset:
            parts.append(command)
            length += len(command)
        if length > MAX_COMMAND_BYTES:
            raise CommandTooLongError(f"a question is longer than {MAX_COMMAND_BYTES} characters")
        if parts and (is_reset or text.startswith(_QUESTIONS)):
            yield "".join(parts)
            parts.clear()
            length = 0
        if is_reset:
            yield "(reset)"
    if parts:
        yield "".join(parts)


def _balance(line: str, quote: str) -> tuple[int, str]:
    """Count the brackets of a line.

    Args:
        line: A line.
        quote: Character that ends the string or symbol in which the line begins; empty outside.

    Returns:
        Opening brackets less closing ones, and the `quote` of the next line.
    """
    balance = 0
    if quote:
        _, end, line = line.partition(quote)
        if not end:
            return 0, quote
    for token in _TOKEN.findall(line):
        if token == "(":  # noqa: S105 - a bracket
            balance += 1
        elif token == ")":  # noqa: S105 - a bracket
            balance -= 1
        elif token in _QUOTES:
            return balance, token
    return balance, ""


class CommandError(Exception):
    """cvc5 refuses a command."""


class _Session:
    """A solver with its declarations; `(reset)` makes a new one."""

    def __init__(self, limit_ms: int) -> None:
        import cvc5  # noqa: PLC0415 - an optional extra

        self._limit_ms = limit_ms
        self._cvc5 = cvc5
        self._reset()

    def _reset(self) -> None:
        # cvc5's parser takes one `set-logic` in its life, also after `(reset)`: a reset makes a new parser.
        cvc5 = self._cvc5
        terms = cvc5.TermManager()
        self._solver = cvc5.Solver(terms)
        self._solver.setOption("tlimit-per", str(self._limit_ms))
        self._symbols = cvc5.SymbolManager(terms)
        self._parser = cvc5.InputParser(self._solver, self._symbols)

    def answer(self, batch: str) -> str:
        """Run commands, and return their output.

        Raises:
            CommandError: cvc5 refuses a command.
        """
        if batch == "(reset)":
            self._reset()
            return ""
        try:
            language = self._cvc5.InputLanguage.SMT_LIB_2_6
            self._parser.setStringInput(language, batch, "stdin")
            output = []
            while not (parsed := self._parser.nextCommand()).isNull():
                output.append(parsed.invoke(self._solver, self._symbols))
            answer = "".join(output)
        except RuntimeError as error:
            raise CommandError(" ".join(str(error).split()).replace('"', "'")) from error
        # cvc5 writes the cause in a second line, which no reader of SMT-LIB expects.
        return "unknown\n" if answer.startswith("unknown") else answer


def version() -> str:
    """Return name and version of the solver.

    Raises:
        ImportError: The extra `analyze` is not installed.
    """
    import cvc5  # noqa: PLC0415 - an optional extra

    return f"cvc5 {cvc5.__version__}"


def _serve(lines: TextIO, output: TextIO, limit_ms: int) -> None:
    session = _Session(limit_ms)
    for batch in batches(commands(iter(lines))):
        answer = session.answer(batch)
        if answer:
            output.write(answer)
        output.flush()


def main(arguments: list[str] | None = None) -> int:
    """Answer the commands of standard input until it ends.

    Args:
        arguments: Arguments of the command. Default: those of the process.

    Returns:
        Exit code: 0 at the end of the input, 1 for a command that cvc5 refuses or that is too long, 3 without cvc5.
    """
    parser = argparse.ArgumentParser(prog="python -m authz.analysis.solver", description=__doc__)
    parser.add_argument("--version", action="store_true", help="print name and version")
    parser.add_argument(
        "--limit-ms", type=int, default=DEFAULT_LIMIT_MS, help="time limit of a question"
    )
    parser.add_argument(
        "--memory-mb", type=int, default=DEFAULT_MEMORY_MB, help="address space of the process"
    )
    options = parser.parse_args(arguments)
    try:
        if options.version:
            print(version())  # noqa: T201 - the answer to --version
            return 0
        # A question that grows without end ends this process, and the analyzer reports it as not decided.
        limit = options.memory_mb * 1024 * 1024
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        _serve(sys.stdin, sys.stdout, options.limit_ms)
    except ImportError:
        sys.stderr.write("cvc5 is not installed: pip install 'authz-runtime[analyze]'\n")
        return 3
    except (CommandError, CommandTooLongError) as error:
        sys.stdout.write(f'(error "{error}")\n')
        sys.stdout.flush()
        return 1
    except BrokenPipeError:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
