"""Prints how often hard-to-read phrases occur in docs, comments and docstrings, for each thousand words.

`python scripts/prose.py [--files N]` also lists the N texts with the most of them. The numbers are a mirror for
writers and reviewers: no test compares them, and a text is not better because a count is lower.
"""

import argparse
import ast
import re
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^(`{3,}).*?^\1", re.MULTILINE | re.DOTALL)
RUST_COMMENT = re.compile(r"^\s*//[/!]?(.*)$", re.MULTILINE)
RUST_TRAILING = re.compile(r"\s//\s(.*)$", re.MULTILINE)
GENERATED = re.compile(r"_pb2|/proto/|/thirdparty/|/v1/|reason\.rs$|CHANGELOG\.md$")
PHRASES = {
    "whoever": r"\b(?:whoever|whatever|whichever|whom)\b",
    "of what": r"\b(?:of|to|from|is|are|for|by|with|in|about|on|than|as) what\b",
    "is no": r"\b(?:is|are|was|were) no\b",
    "for example": r"\b(?:for example|e\.g\.)",
    "you": r"\byour?\b",
}


@dataclass(frozen=True)
class Text:
    """The prose of one file.

    Attributes:
        path: from the repository's root.
        kind: `docs`, `Python` or `Rust`.
        words: number of words.
        counts: occurrences of each phrase.
    """

    path: str
    kind: str
    words: int
    counts: dict[str, int]

    @property
    def hard(self) -> int:
        """Number of hard-to-read phrases."""
        return sum(self.counts[name] for name in ("whoever", "of what", "is no"))


def main() -> None:
    """Reads the tree and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=0, help="list this many texts")
    wanted = parser.parse_args().files
    texts = list(read())
    print(f"{'':8}{'words':>9}" + "".join(f"{name:>13}" for name in PHRASES))
    for kind in ("docs", "Python", "Rust"):
        mine = [text for text in texts if text.kind == kind]
        words = sum(text.words for text in mine) or 1
        rates = (sum(text.counts[name] for text in mine) / words * 1000 for name in PHRASES)
        print(f"{kind:8}{words:>9}" + "".join(f"{rate:>13.2f}" for rate in rates))
    for text in sorted(texts, key=lambda text: -text.hard)[:wanted]:
        print(f"{text.hard:4} in {text.words:6} words: {text.path}")


def read() -> Iterator[Text]:
    """Yields the prose of every hand-written file."""
    for pattern, kind, prose in (
        ("*.md", "docs", _markdown),
        ("docs/**/*.md", "docs", _markdown),
        ("bench/*.md", "docs", _markdown),
        ("examples/**/*.md", "docs", _markdown),
        ("authz/**/*.py", "Python", _python),
        ("native/*/src/**/*.rs", "Rust", _rust),
    ):
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            if not GENERATED.search(name):
                yield _text(name, kind, " ".join(prose(path)))


def _text(name: str, kind: str, prose: str) -> Text:
    counts = {
        phrase: len(re.findall(form, prose, re.IGNORECASE)) for phrase, form in PHRASES.items()
    }
    return Text(name, kind, len(prose.split()), counts)


def _markdown(path: Path) -> Iterable[str]:
    return [FENCE.sub("", path.read_text())]


def _python(path: Path) -> Iterator[str]:
    source = path.read_text()
    for node in ast.walk(ast.parse(source)):
        # Strings that stand alone are docstrings, also those of attributes.
        match node:
            case ast.Expr(value=ast.Constant(value=str(docstring))):
                yield docstring
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT:
                yield token.string.lstrip("# ")


def _rust(path: Path) -> Iterator[str]:
    source = path.read_text()
    yield from RUST_COMMENT.findall(source)
    yield from RUST_TRAILING.findall(source)


if __name__ == "__main__":
    main()
