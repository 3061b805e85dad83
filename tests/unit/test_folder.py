"""Reading a bundle folder: bounded, inside itself, and never half-copied."""

from __future__ import annotations

import hashlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from authz.bundle import MANIFEST, read_folder, seal_folder
from authz.engine import Plan
from authz.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small bundle."""
    made = tmp_path / "bundle"
    (made / "policies").mkdir(parents=True)
    (made / "bundle.yaml").write_bytes(b"name: x\n")
    (made / "policies" / "a.cedar").write_bytes(b"permit(principal, action, resource);\n")
    return made


def nothing(_seconds: float) -> None:
    """Wait for nothing."""


def test_only_what_belongs_to_a_bundle_is_read(folder: Path) -> None:
    """Hidden files, and files of other kinds, are left out."""
    (folder / ".git").mkdir()
    (folder / ".git" / "x.yaml").write_text("x")
    (folder / "README.md").write_text("x")
    (folder / "policies" / "a.cedar~").write_text("x")
    (folder / "policy.cedar~").write_text("x")

    assert sorted(read_folder(folder, pause=nothing).files) == ["bundle.yaml", "policies/a.cedar"]


@pytest.mark.parametrize("name", ["policy.ceder", "policy.cedar.txt", "Policy.cedar", "desk.cedr"])
def test_a_policy_with_a_misspelt_name_is_refused(folder: Path, name: str) -> None:
    """Also beside `bundle.yaml`: a forbid that is not read would permit."""
    (folder / name).write_text("forbid (principal, action, resource);")
    with pytest.raises(BundleError, match=rf"{name}: a bundle holds no files of this kind"):
        Plan.compile(read_folder(folder, pause=nothing), {})


def test_a_link_out_of_the_bundle_is_refused(folder: Path) -> None:
    """A bundle could otherwise read any file of the machine."""
    (folder / "hosts.yaml").symlink_to("/etc/hostname")

    with pytest.raises(BundleError, match=r"`hosts\.yaml` leads out of the bundle"):
        read_folder(folder, pause=nothing)


@pytest.mark.parametrize("name", ["loop", "loop.yaml"])
def test_a_link_that_leads_to_itself_is_refused(folder: Path, name: str) -> None:
    """Also where its name is none of a bundle's."""
    (folder / "policies" / name).symlink_to(name)

    with pytest.raises(BundleError, match=rf"link `policies/{name}` leads in a circle\. Remove"):
        read_folder(folder, pause=nothing)


@pytest.mark.parametrize("target", [".", "..", "../policies"])
def test_a_link_to_a_folder_that_holds_it_is_refused(folder: Path, target: str) -> None:
    """Every file would be read again and again."""
    (folder / "policies" / "more").symlink_to(target)

    with pytest.raises(BundleError, match="link `policies/more` leads in a circle"):
        read_folder(folder, pause=nothing)


def test_two_links_that_lead_to_each_other_are_refused(folder: Path) -> None:
    """No folder holds the link that leads to it."""
    (folder / "other").mkdir()
    (folder / "other" / "back").symlink_to("../policies")
    (folder / "policies" / "more").symlink_to("../other")

    with pytest.raises(BundleError, match="leads in a circle"):
        read_folder(folder, pause=nothing)


@pytest.mark.parametrize("name", [b"\xff.yaml", b"\xffolder"])
def test_a_name_that_is_no_utf_8_is_refused(folder: Path, name: bytes) -> None:
    """The engine could not read it, nor anybody the message."""
    made = os.fsencode(folder) + b"/" + name
    if b"." in name:
        with open(made, "wb") as stream:  # noqa: PTH123 - a path of bytes
            stream.write(b"a: 1\n")
    else:
        os.mkdir(made)  # noqa: PTH102 - a path of bytes

    with pytest.raises(BundleError, match=r"`\\xff[a-z.]+` is not UTF-8\. Rename it\.") as refused:
        read_folder(folder, pause=nothing)
    assert str(refused.value).encode()


def test_a_folder_that_leads_to_itself_is_refused(tmp_path: Path) -> None:
    """As any that cannot be read."""
    (tmp_path / "bundle").symlink_to("bundle")

    with pytest.raises(BundleError, match="cannot be read"):
        read_folder(tmp_path / "bundle", pause=nothing)


def test_the_links_of_a_mounted_config_map_are_followed(folder: Path) -> None:
    """They stay inside: `bundle.yaml -> ..data/bundle.yaml`, `..data -> ..1`."""
    (folder / "..1").mkdir()
    (folder / "..1" / "facts.yaml").write_text("labels: {}\n")
    (folder / "..data").symlink_to("..1")
    (folder / "facts.yaml").symlink_to("..data/facts.yaml")

    assert "facts.yaml" in read_folder(folder, pause=nothing).files


@pytest.mark.parametrize(
    ("max_bytes", "max_files", "message"), [(1, 1000, "larger"), (1 << 20, 1, "more than")]
)
def test_bounds_hold(folder: Path, max_bytes: int, max_files: int, message: str) -> None:
    """One byte or file too many refuses all of it."""
    with pytest.raises(BundleError, match=message):
        read_folder(folder, pause=nothing, max_bytes=max_bytes, max_files=max_files)


def test_a_named_pipe_does_not_hold_the_reader(folder: Path) -> None:
    """It is refused instead of waited for."""
    os.mkfifo(folder / "pipe.yaml")

    with pytest.raises(BundleError, match="not a regular file"):
        read_folder(folder, pause=nothing)


def test_a_folder_that_changes_is_read_until_it_is_quiet(folder: Path) -> None:
    """What is handed on is what stood there twice."""
    pauses: list[float] = []

    def copy_more(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) < 3:
            (folder / f"{len(pauses)}.yaml").write_text("x: 1\n")

    files = read_folder(folder, pause=copy_more).files

    assert {"1.yaml", "2.yaml"} <= set(files)
    assert len(pauses) == 3


def test_a_folder_that_never_rests_is_refused(folder: Path) -> None:
    """After a bounded number of readings."""
    changes = iter(range(1000))

    def copy_more(_seconds: float) -> None:
        (folder / "x.yaml").write_text(f"x: {next(changes)}\n")

    with pytest.raises(BundleError, match="keeps changing"):
        read_folder(folder, pause=copy_more)


def test_a_manifest_lists_exactly_what_is_loaded(folder: Path) -> None:
    """Also by the tool of coreutils, and with a file that is not part of a bundle."""
    (folder / "README.md").write_text("x")
    sums = subprocess.run(
        ["sha256sum", "./bundle.yaml", "policies/a.cedar", "README.md"],
        cwd=folder,
        capture_output=True,
        check=True,
    )
    (folder / MANIFEST).write_bytes(sums.stdout)

    files = read_folder(folder, pause=nothing, require_manifest=True).files
    assert sorted(files) == ["bundle.yaml", "policies/a.cedar"]


def test_a_sealed_folder_is_loaded(folder: Path) -> None:
    """`sha256sum --check` agrees with the manifest, and a second seal with the first."""
    (folder / "policies" / "of a space.cedar").write_text("// nothing")
    before = read_folder(folder, pause=nothing)
    assert seal_folder(folder, pause=nothing) == 3
    manifest = (folder / MANIFEST).read_bytes()

    assert read_folder(folder, pause=nothing, require_manifest=True) == before
    subprocess.run(["sha256sum", "--check", "--strict", MANIFEST], cwd=folder, check=True)
    assert seal_folder(folder, pause=nothing) == 3
    assert (folder / MANIFEST).read_bytes() == manifest
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def remove_policy(folder: Path) -> None:
    """Copies half."""
    (folder / "policies" / "a.cedar").unlink()


def cut_policy(folder: Path) -> None:
    """Copies half of a file."""
    file = folder / "policies" / "a.cedar"
    file.write_bytes(file.read_bytes()[:10])


def change_byte(folder: Path) -> None:
    """Changes nothing that a compiler would see."""
    file = folder / "policies" / "a.cedar"
    file.write_bytes(file.read_bytes().replace(b"principal,", b"principal ,"))


def add_policy(folder: Path) -> None:
    """Leaves a file of the bundle before."""
    (folder / "policies" / "old.cedar").write_text("permit(principal, action, resource);")


def new_manifest(folder: Path) -> None:
    """Copies the manifest of the next bundle before its files."""
    digest = hashlib.sha256(b"permit(principal, action, resource) when { true };").hexdigest()
    manifest = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(
        manifest[: manifest.rindex("\n", 0, -1) + 1] + f"{digest}  policies/a.cedar\n"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            remove_policy,
            r"`policies/a\.cedar`, which MANIFEST\.sha256 lists, is missing\. Copy the whole",
        ),
        (cut_policy, r"`policies/a\.cedar` is not the file that MANIFEST\.sha256 lists"),
        (change_byte, r"`policies/a\.cedar` is not the file that MANIFEST\.sha256 lists"),
        (add_policy, r"`policies/old\.cedar` is not listed in MANIFEST\.sha256"),
        (new_manifest, r"`policies/a\.cedar` is not the file that MANIFEST\.sha256 lists"),
    ],
)
def test_a_folder_that_differs_from_its_manifest_is_refused(
    folder: Path, change: Callable[[Path], None], message: str
) -> None:
    """Missing file, half of a file, changed byte, file too many, manifest of another bundle. Without the manifest each would load."""
    seal_folder(folder, pause=nothing)
    change(folder)

    with pytest.raises(BundleError, match=message):
        read_folder(folder, pause=nothing)
    (folder / MANIFEST).unlink()
    assert "bundle.yaml" in read_folder(folder, pause=nothing).files


def test_a_folder_without_a_manifest_is_refused_where_one_is_required(folder: Path) -> None:
    """The manifest may be the file that was not copied yet."""
    with pytest.raises(
        BundleError, match=r"MANIFEST\.sha256 is missing, .* Run `authz bundle seal"
    ):
        read_folder(folder, pause=nothing, require_manifest=True)


def test_a_link_that_is_replaced_while_the_manifest_is_read_is_followed(tmp_path: Path) -> None:
    """The manifest of one bundle and the files of the next one are read once more."""
    for name in ("1", "2"):
        (tmp_path / f"..{name}").mkdir()
        (tmp_path / f"..{name}" / "bundle.yaml").write_text(f"name: x{name}\n")
        seal_folder(tmp_path / f"..{name}", pause=nothing)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "bundle.yaml").symlink_to("..data/bundle.yaml")
    # The manifest of 1 beside the files of 2, until the link of the manifest is replaced, too.
    (tmp_path / MANIFEST).symlink_to(f"..2/{MANIFEST}")

    def swap(_seconds: float) -> None:
        (tmp_path / "..new").symlink_to("..2")
        (tmp_path / "..new").rename(tmp_path / "..data")

    assert read_folder(tmp_path, pause=swap).files == {"bundle.yaml": b"name: x2\n"}


@pytest.mark.parametrize("name", ["a\nb.yaml", "a\\b.yaml", "a\x0cb.yaml", "a\u2028b.yaml"])
def test_a_name_that_cannot_stand_in_a_manifest_is_not_sealed(folder: Path, name: str) -> None:
    """It would be read as another name."""
    (folder / name).write_text("a: 1\n")

    with pytest.raises(BundleError, match="cannot stand in a manifest"):
        seal_folder(folder, pause=nothing)
    assert not (folder / MANIFEST).exists()


@pytest.mark.parametrize(
    "line",
    [
        "0" * 64 + "  bundle.yaml",
        "x  bundle.yaml",
        hashlib.sha256(b"").hexdigest() + "  ../../outside.yaml",
        hashlib.sha256(b"").hexdigest() + "  missing.yaml",
        hashlib.sha256(b"").hexdigest() + "  nul\0.yaml",
        hashlib.sha256(b"").hexdigest() + "  loop.yaml",
        hashlib.sha256(b"").hexdigest() + "  " + "long" * 100 + ".yaml",
        "\n".join([hashlib.sha256(b"name: x\n").hexdigest() + "  bundle.yaml"] * 2),
    ],
)
def test_a_manifest_that_does_not_hold_refuses_all(folder: Path, line: str) -> None:
    """A half-copied folder is never seen."""
    (folder / "loop.yaml").symlink_to("loop.yaml")
    (folder / MANIFEST).write_text(line + "\n")

    with pytest.raises(BundleError):
        read_folder(folder, pause=nothing)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    """With its path."""
    with pytest.raises(BundleError, match="cannot be read"):
        read_folder(tmp_path / "none", pause=nothing)


def test_reading_rests_where_decisions_go_on_and_never_for_long(folder: Path) -> None:
    """Of 700 files some rests come, and all of them are less than half a second."""
    for number in range(700):
        (folder / "policies" / f"{number}.cedar").write_text("// nothing")
    rests: list[float] = []
    bundle = read_folder(folder, pause=rests.append)
    assert rests == [0.1]
    rests.clear()
    assert read_folder(folder, pause=rests.append, served=bundle) == bundle
    assert rests.count(0.1) == 1
    assert len(rests) > 1
    assert sum(rests) <= 0.51


def test_what_is_the_same_as_what_serves_is_kept_once(folder: Path) -> None:
    """A file that has changed is read as it is now."""
    served = read_folder(folder, pause=nothing)
    changed = next(name for name in served.files if name.endswith(".cedar"))
    (folder / changed).write_bytes(served.files[changed] + b"// changed\n")
    after = read_folder(folder, pause=nothing, served=served)
    assert after == read_folder(folder, pause=nothing)
    assert after != served
    kept = {name for name, content in after.files.items() if content is served.files.get(name)}
    assert kept == set(served.files) - {changed}
