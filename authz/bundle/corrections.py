"""Corrects misspelt names in the files of a bundle: the word that a message is about becomes the word that was meant.

Only that word changes, so comments and layout stay.
"""

import difflib
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from authz.errors import UsageError
from authz.files import replace_file
from authz.model import Diagnostic

__all__ = ["corrected", "differences", "write_corrections"]


def corrected(files: Mapping[str, bytes], diagnostics: Iterable[Diagnostic]) -> dict[str, bytes]:
    """Correct every misspelt name that a diagnostic knows a replacement for.

    Args:
        files: Contents of the bundle's files, by path.
        diagnostics: Errors and warnings about the bundle.

    Returns:
        New contents of the files that change, by path.
    """
    changed: dict[str, bytes] = {}
    # From the end of a line to its beginning, so that a correction moves no place that is still needed.
    # Two diagnostics about one word correct it once: a second correction would reach the next word like it.
    places = {(one.file, one.line, -one.column, one.replacement): one for one in diagnostics}
    ordered = [places[place] for place in sorted(places, key=lambda place: place[:3])]
    for diagnostic in ordered:
        content = changed.get(diagnostic.file, files.get(diagnostic.file))
        if content is None or diagnostic.replacement is None or diagnostic.line < 1:
            continue
        new = _with_word(content, diagnostic.line, diagnostic.column, *diagnostic.replacement)
        if new is not None:
            changed[diagnostic.file] = new
    return changed


def _with_word(content: bytes, line: int, column: int, old: str, new: str) -> bytes | None:
    """Replace the first whole word at or after a place on its line. None where the line does not have it."""
    try:
        lines = content.decode().split("\n")
    except UnicodeDecodeError:
        return None
    if len(lines) < line:
        return None
    text = lines[line - 1]
    start = max(column - 1, 0)
    while (start := text.find(old, start)) >= 0:
        end = start + len(old)
        if not _joins(text, start - 1) and not _joins(text, end):
            lines[line - 1] = text[:start] + new + text[end:]
            return "\n".join(lines).encode()
        start += 1
    return None


def _joins(text: str, index: int) -> bool:
    """Return whether the character at an index would belong to the same word."""
    return 0 <= index < len(text) and (text[index].isalnum() or text[index] in "_-")


def differences(before: Mapping[str, bytes], changed: Mapping[str, bytes]) -> Iterator[str]:
    """Yield the lines of a unified diff."""
    for path, content in sorted(changed.items()):
        old, new = before[path].decode().splitlines(), content.decode().splitlines()
        yield from difflib.unified_diff(old, new, f"a/{path}", f"b/{path}", lineterm="", n=1)


def write_corrections(folder: Path, changed: Mapping[str, bytes]) -> None:
    """Write the corrected files: each is replaced at once, with the same mode.

    Args:
        folder: The bundle's folder.
        changed: Contents by path.

    Raises:
        UsageError: A file is a symbolic link, which may be shared.
        OSError: A file cannot be written.
    """
    for path, content in changed.items():
        target = folder / path
        if target.is_symlink():
            raise UsageError(f"{target} is a symbolic link; correct the file that it leads to")
        replace_file(target, content, stat.S_IMODE(target.stat().st_mode))
