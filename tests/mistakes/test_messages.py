"""Messages about 200 mistakes: each says what is wrong, where, and how to fix it.

`mistakes.yaml` has the mistakes. A message gets a point for each of the three. The test prints the mean of each group.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import pytest
import yaml

from authz.bundle import CheckFacts, check_bundle, compile_bundle
from authz.config import Tls, load
from authz.errors import BundleError, ConfigError
from authz.model import BundleFiles, Diagnostic
from authz.server.tls_files import read_tls
from tests.support.mutual import certificate, write

HERE: Final = Path(__file__).parent
EXAMPLE: Final = HERE.parents[1] / "examples" / "quickstart"
VARIABLES: Final = {"trust_domain": "dev.example"}
NOW: Final = 1_800_000_000_000
LEAST_MEAN: Final = 2.9
"""Mean of each group at least; 3 is the most."""
MOST_ERRORS: Final = 4
"""Errors about one mistake at most: what follows from a mistake is not told."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake, and the message that it should have."""

    group: str
    run: str
    file: str
    old: str
    new: str
    added: Mapping[str, str]
    line: str
    what: tuple[str, ...]
    fix: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name in test output."""
        return f"{self.file}: {self.new or 'without ' + self.old}".replace("\n", "⏎")[:90]


def mistakes() -> Iterator[Mistake]:
    """Read the set."""
    document = yaml.safe_load((HERE / "mistakes.yaml").read_text())
    for group, entries in document.items():
        file = ""
        for entry in entries:
            file = entry.get("file", file)
            yield Mistake(
                group,
                entry.get("run", "check"),
                file,
                entry.get("old", ""),
                entry.get("new", ""),
                entry.get("add", {}),
                entry.get("line", ""),
                tuple(entry["what"]),
                tuple(entry.get("fix", ())),
            )


MISTAKES: Final = list(mistakes())


@cache
def texts() -> Mapping[str, str]:
    """Return the files of the example's bundle."""
    folder = EXAMPLE / "bundle"
    files = (path for path in folder.rglob("*") if path.suffix in (".yaml", ".cedar"))
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def changed(mistake: Mistake, before: str) -> tuple[str, int]:
    """Make the edit. Returns the new text, and the number of the line that a message must point at."""
    assert not mistake.old or mistake.old in before, f"{mistake.old!r} is not in {mistake.file}"
    at = before.find(mistake.old)
    after = before.replace(mistake.old, mistake.new, 1) if mistake.old else before
    if mistake.line:
        first, *rest = mistake.line.split("\n")
        near = max(at - 200, 0) if rest else at
        found = after.find(mistake.line, near)
        found = found if found >= 0 else after.find(mistake.line)
        assert found >= 0, f"{first!r} is not in {mistake.file}"
    else:
        same = next(
            (i for i, (a, b) in enumerate(zip(before[at:], after[at:], strict=False)) if a != b), 0
        )
        found = at + same
    return after, after.count("\n", 0, found) + 1


def messages(mistake: Mistake, folder: Path) -> tuple[list[Diagnostic], str]:
    """Run the check. Returns what it says, and the place that it should say."""
    if mistake.run == "config":
        text, line = changed(mistake, (EXAMPLE / "config.yaml").read_text())
        file = folder / "config.yaml"
        file.write_text(text)
        (folder / "bundle").mkdir(exist_ok=True)
        try:
            load(file, {}, working_folder=folder)
        except ConfigError as error:
            return list(error.diagnostics), f"{file}:{line}"
        return [], f"{file}:{line}"
    files = {**texts(), **mistake.added}
    text, line = changed(mistake, files[mistake.file])
    files[mistake.file] = text
    bundle = BundleFiles("bundle", {path: text.encode() for path, text in files.items()})
    try:
        if mistake.run == "test":
            compile_bundle(bundle, VARIABLES, NOW)
        found = list(
            check_bundle(bundle, CheckFacts(VARIABLES, ("corp",), is_complete=True)).warnings
        )
        # Whoever gets no error runs the tests next.
        if not found and mistake.group == "test files":
            compile_bundle(bundle, VARIABLES, NOW)
    except BundleError as error:
        found = list(error.diagnostics)
    return found, f"{mistake.file}:{line}"


def score(mistake: Mistake, found: Diagnostic, place: str) -> int:
    """Give a point for what, where and how."""
    says_what = all(word in found.what for word in mistake.what)
    # A file that does not belong has no line.
    says_where = f"{found.file}:{found.line or 1}" == place
    says_how = bool(found.fix) and all(word in f"{found.what} {found.fix}" for word in mistake.fix)
    return says_what + says_where + says_how


def test_the_set_is_large_and_has_every_group() -> None:
    """At least 150 mistakes, the weak groups of before among them."""
    assert len(MISTAKES) >= 150
    groups = {mistake.group for mistake in MISTAKES}
    assert {"yaml form", "systems", "policies", "test files", "configuration"} <= groups


def test_messages_say_what_where_and_how(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The mean of each group is near 3; the rest is listed."""
    scores: dict[str, list[int]] = {}
    weak: list[str] = []
    for mistake in MISTAKES:
        found, place = messages(mistake, tmp_path)
        best = max((score(mistake, one, place) for one in found), default=0)
        errors = [one for one in found if one.severity == "error"]
        scores.setdefault(mistake.group, []).append(best)
        if best < 3 or len(errors) > MOST_ERRORS:
            said = " ¶ ".join(map(str, found[:3])) or "nothing"
            weak.append(f"{best} [{mistake.group}] {mistake.name}\n      {place}: {said[:700]}")
    rows = [
        f"  {group:28} {sum(points) / len(points):.2f}  ({len(points)})"
        for group, points in scores.items()
    ]
    every = [point for points in scores.values() for point in points]
    head = f"messages about {len(every)} mistakes, mean of 0 to 3: {sum(every) / len(every):.2f}"
    with capsys.disabled():
        sys.stdout.write("\n".join(["", head, *rows, ""]))
    report = "\n".join(weak)
    assert all(sum(points) >= LEAST_MEAN * len(points) for points in scores.values()), report


@pytest.mark.parametrize("extra", ["people.yaml", "policies/support.cedar", "tests/support.yaml"])
def test_a_file_that_cannot_be_read_has_one_error(extra: str) -> None:
    """What follows from a file that is not YAML or not Cedar is not told."""
    files = {**texts(), extra: texts()[extra] + "\n{[ broken"}
    bundle = BundleFiles("bundle", {path: text.encode() for path, text in files.items()})
    with pytest.raises(BundleError) as refused:
        check_bundle(bundle, CheckFacts(VARIABLES))
    (only,) = refused.value.diagnostics
    assert only.file == extra


def test_a_key_of_another_certificate_is_named(tmp_path: Path) -> None:
    """The message names both files and the certificate, instead of a handshake that fails without a reason."""
    authority = certificate("authority", None)
    files = {}
    for name in ("one", "other"):
        write(tmp_path, name, certificate(name, authority))
        files[name] = (tmp_path / f"{name}.pem", tmp_path / f"{name}.key")
        files[name][1].chmod(0o600)
    pair = Tls(cert_file=str(files["one"][0]), key_file=str(files["one"][1]))
    assert b"CERTIFICATE" in read_tls(pair).certificate
    wrong = Tls(cert_file=str(files["one"][0]), key_file=str(files["other"][1]))
    with pytest.raises(ConfigError) as refused:
        read_tls(wrong)
    (only,) = refused.value.diagnostics
    assert only.file == str(files["other"][1])
    assert str(files["one"][0]) in only.what
    assert "CN=one" in only.what
    assert "certificate was issued" in only.fix
