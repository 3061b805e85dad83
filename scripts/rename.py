"""Renames the words of 0.1.0-dev bundles, configurations, dashboards and sources to those of 0.1.

    rename.py FOLDER...          writes files anew
    rename.py --check FOLDER...  lists files that it would write; fails if there is one

The table of old and new words is in docs/CHANGELOG.md. Run it once on a folder with bundles, policies, `authz.yaml`, alert rules
or programs that read the audit. In a source file it tells code from prose: an identifier or key becomes `recipient_list`, the
word of a sentence "recipient list". What it has renamed, it leaves alone.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

CODE = {".py", ".pyi", ".rs"}
DATA = {".yaml", ".yml", ".json", ".cedar", ".proto", ".patch", ".toml", ".txtar", ".hurl"}
PROSE = {".md"}

# Old word: (new word in code, new words in prose).
WORDS = {
    "directory": ("recipient_list", "recipient list"),
    "directories": ("recipient_lists", "recipient lists"),
    "injection": ("static_secret", "static secret"),
    "injections": ("static_secrets", "static secrets"),
    "excess": ("uncleared_labels", "uncleared labels"),
    "mend": ("fix", "fix"),
    "mends": ("fixes", "fixes"),
    "mended": ("fixed", "fixed"),
    "mending": ("fix", "fix"),
}
# Parts of longer identifiers: `put_directory`, `DirectoryEntries`, `authz_injection_readable`.
PARTS = {
    "directories": "recipient_lists",
    "directory": "recipient_list",
    "injections": "static_secrets",
    "injection": "static_secret",
    "excess": "uncleared_labels",
    "mending": "fix",
    "mended": "fixed",
    "mend": "fix",
}
CAMEL = {
    "Directories": "RecipientLists",
    "Directory": "RecipientList",
    "Injections": "StaticSecrets",
    "Injection": "StaticSecret",
    "Excess": "UnclearedLabels",
}
# Words that have the letters of an old one and another meaning.
OTHER = re.compile(
    r"prompt.injections?|no such file or directory|(?:temporary|working|current|home|unix_socket_)_?director(?:y|ies)|O_DIRECTORY"
    r"|list_directory|print-directory|directories\.tokendir|\w*(?:_|x6\d\w*)injected|recommend\w*|amend\w*|InjectionError"
    r"|injection-proof|sql.injection|command.injection|(?:its|over its|the \w+ lane's) excess|branch: mend",
    re.IGNORECASE,
)
WORD = re.compile(
    r"\w*(?:director(?:y|ies)|injections?|excess|mend(?:s|ed|ing)?)\w*", re.IGNORECASE
)
RUST = re.compile(
    r"""//[^\n]*|b?'(?:\\.|[^'\\\n])'|\br(?P<marks>#*)"(?:.|\n)*?"(?P=marks)|"(?:\\[\s\S]|[^"\\])*\"""",
    re.MULTILINE,
)
PYTHON = re.compile(
    r'#[^\n]*|"""(?:.|\n)*?"""|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.MULTILINE
)
COMMENT = re.compile(r"(?:#|//)[^\n]*|\"[^\"\n]* [^\"\n]*\"")


def spans(pattern: re.Pattern[str], text: str) -> list[tuple[int, int]]:
    """Return the spans of comments and strings: prose, unless the word's neighbours say code."""
    return [match.span() for match in pattern.finditer(text)]


def is_code(text: str, start: int, end: int) -> bool:
    """Return whether a word inside prose is an identifier or key."""
    before, after = text[max(0, start - 1) : start], text[end : end + 1]
    if before == "[" and text[end : end + 2] == "](":
        return False
    line = text[text.rfind("\n", 0, start) + 1 : start]
    key = after == ":" and (
        before == "}" or not line.strip(" -{*#/!|") or line.rstrip().endswith(("{", ",", '"'))
    )
    return (
        (before != "" and before in "`_.[{$<(/#" and not (before == "(" and after == " "))
        or (before != "" and before in "\"'" and after in "\"'")
        or (after != "" and after in "`_=[")
        or ("known: " in line and "; declared" not in line)
        or key
        or (after == "." and text[end + 1 : end + 2].isalpha())
    )


def renamed(word: str, *, code: bool) -> str:
    """Return the new spelling of a word; the same if it is not one of the old ones."""
    lower = word.lower()
    if lower in WORDS:
        new = WORDS[lower][0 if code else 1]
        if word.isupper():
            return new.upper()
        if word[0].isupper():
            if code and lower.capitalize() in CAMEL:
                return CAMEL[lower.capitalize()]
            return new[0].upper() + new[1:]
        return new
    for old, new in CAMEL.items():
        word = re.sub(rf"(?<![A-Z]){old}(?![a-z])", new, word)
    for old, new in PARTS.items():
        word = re.sub(rf"(?<![a-z]){old}(?![a-z])", new, word)
        word = re.sub(rf"(?<![A-Z]){old.upper()}(?![A-Z])", new.upper(), word)
    return word


def rename(text: str, suffix: str) -> str:
    """Return the text with today's words."""
    pattern = {".rs": RUST, ".py": PYTHON, ".pyi": PYTHON}.get(suffix, COMMENT)
    prose = [(0, len(text))] if suffix in PROSE else spans(pattern, text)
    others = spans(OTHER, text)
    out, last, at = [], 0, 0
    for match in WORD.finditer(text):
        start, end = match.span()
        if any(low <= start < high for low, high in others):
            continue
        while at < len(prose) and prose[at][1] <= start:
            at += 1
        inside = at < len(prose) and prose[at][0] <= start
        code = not inside or is_code(text, start, end)
        out += [text[last:start], renamed(match.group(), code=code)]
        last = end
    return "".join(out) + text[last:]


def files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder that may hold the words; in a clone, those that git tracks."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"],
        cwd=folder,
        capture_output=True,
        check=False,
        text=True,
    )
    names = listed.stdout.split("\0") if listed.returncode == 0 and listed.stdout else None
    all_files = [folder / name for name in names if name] if names else folder.rglob("*")
    for path in all_files:
        if path.suffix in CODE | DATA | PROSE and path.is_file() and not is_left(path, folder):
            yield path


# Not ours, generated, or about another thing: `injection` of a scenario is one of its prompt.
LEFT = re.compile(
    r"(?:^|/)(?:thirdparty|tests/data|\.venv|node_modules)/|_pb2|Cargo\.lock|docs/CHANGELOG\.md|native/lane/src/proto/|scripts/rename\.py"
    r"|bench/detection/(?:\w+\.py|README\.md|\w+/(?:hijacked|honest|seed|calls)\.yaml)|tests/unit/test_detection\.py|bench/detection/\w+/bundle/tests/|tests/unit/test_rename\.py"
    r"|base/src/reason\.rs|reason-codes\.md|bench/results"
)


def is_left(path: Path, folder: Path) -> bool:
    """Return whether a file is not to be changed."""
    return LEFT.search(path.relative_to(folder).as_posix()) is not None


def main() -> int:
    """Rename, or check; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="list files; write nothing")
    parser.add_argument("folders", nargs="+", type=Path, help="folders to rename in")
    options = parser.parse_args()
    changed = 0
    for folder in options.folders:
        for path in sorted(files(folder)):
            text = path.read_text("utf-8")
            new = rename(text, path.suffix)
            if new != text:
                changed += 1
                sys.stdout.write(f"{path}\n")
                if not options.check:
                    path.write_text(new, "utf-8")
    return 1 if options.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
