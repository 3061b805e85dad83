"""Where files stand that nobody else may replace: folders and links on the way."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from authz.config import Tls
from authz.errors import ConfigError, KeysError
from authz.files import PrivateFileError, check_way, open_checked, read_private, read_secret
from authz.server.sockets import prepare
from authz.server.tls_files import read_tls
from authz.signing.folder import FolderKeys
from authz.trust.fetch import FetchError, WebVerifier
from authz.trust.sources import read_document
from tests.support.keyserver import WebAuthority

if TYPE_CHECKING:
    from collections.abc import Callable

OTHER = 54_321
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


@pytest.fixture
def way(tmp_path: Path) -> Path:
    """A secret two folders deep, all of it ours."""
    inner = tmp_path / "above" / "inner"
    inner.mkdir(parents=True)
    for folder in (inner, inner.parent):
        folder.chmod(0o755)
    file = inner / "secret"
    file.write_text("kept\n")
    file.chmod(0o600)
    return file


@pytest.mark.parametrize(
    ("mode", "is_good"),
    [
        (0o755, True),
        (0o700, True),
        (0o1777, True),
        (0o775, True),
        (0o777, False),
        (0o757, False),
        (0o2777, False),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_each_folder_of_the_way_counts(
    way: Path, mode: int, *, is_good: bool, strict: bool
) -> None:
    """A sticky folder, in which nobody can replace what is another's, may be written by all; our groups may write."""
    for folder in (way.parent, way.parent.parent):
        folder.chmod(mode)
        if is_good:
            assert check_way(way, strict=strict) == way
        else:
            with pytest.raises(PermissionError) as refused:
                check_way(way, strict=strict)
            assert refused.value.strerror == (
                f"folder `{folder}` can be written by others (mode {mode:04o}), who could replace the file; "
                "chmod go-w it, or use another folder"
            )
        folder.chmod(0o755)


@AS_ROOT
def test_folders_of_others(way: Path) -> None:
    """Those of another user count for secrets; a bundle may belong to who deploys it."""
    folder = way.parent
    os.chown(folder, OTHER, 0)
    with pytest.raises(PermissionError, match=f"belongs to user {OTHER}, who could replace"):
        check_way(way)
    assert check_way(way, strict=False) == way
    os.chown(folder, 0, OTHER)
    folder.chmod(0o775)
    with pytest.raises(PermissionError, match="can be written by others"):
        check_way(way)


def test_what_is_missing_is_no_error(way: Path) -> None:
    """Whoever opens it tells; the folders before it were checked."""
    missing = way.parent / "none" / "deeper"
    assert check_way(missing) == missing
    way.parent.chmod(0o777)
    with pytest.raises(PermissionError, match="can be written by others"):
        check_way(missing)


def mount(folder: Path, name: str, content: str) -> Path:
    """A secret as Kubernetes mounts it: links within one folder, which everybody may write to and is sticky."""
    folder.mkdir()
    folder.chmod(0o1777)
    dated = folder / "..2026_11_30_06_00_00.123"
    dated.mkdir()
    dated.chmod(0o755)
    (dated / name).write_text(content)
    (dated / name).chmod(0o600)
    (folder / "..data").symlink_to(dated.name)
    (folder / name).symlink_to(f"..data/{name}")
    return folder / name


def test_a_mounted_secret_is_read(tmp_path: Path) -> None:
    """And again, once its links lead to the next one."""
    file = mount(tmp_path / "mounted", "key", "one\n")
    assert read_secret(file) == "one"
    later = file.parent / "..2026_11_30_07_00_00.456"
    later.mkdir()
    (later / "key").write_text("two\n")
    (later / "key").chmod(0o600)
    (file.parent / "..new").symlink_to(later.name)
    (file.parent / "..new").rename(file.parent / "..data")
    assert read_secret(file) == "two"


@AS_ROOT
@pytest.mark.parametrize("strict", [True, False])
def test_a_link_that_anybody_could_have_made(tmp_path: Path, *, strict: bool) -> None:
    """In a sticky folder everybody makes links, and leads their own elsewhere."""
    file = mount(tmp_path / "mounted", "key", "one\n")
    link = file.parent / "link"
    link.symlink_to(file)
    assert check_way(link, strict=strict).read_text() == "one\n"
    os.lchown(link, OTHER, OTHER)
    with pytest.raises(PermissionError, match=f"symbolic link `{link}` belongs to user {OTHER}"):
        check_way(link, strict=strict)


def test_where_a_link_leads_counts(way: Path, tmp_path: Path) -> None:
    """By its folders, not those of the link; also with `..` in it."""
    for target in (way, Path("above/inner/../inner/secret")):
        link = tmp_path / "link"
        link.symlink_to(target)
        assert check_way(link) == way
        way.parent.parent.chmod(0o777)
        with pytest.raises(PermissionError, match="can be written by others"):
            check_way(link)
        way.parent.parent.chmod(0o755)
        link.unlink()


def test_a_circle_of_links_ends(tmp_path: Path) -> None:
    """With the system's own words."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        check_way(tmp_path / "a")


def _keys(file: Path) -> object:
    file.parent.chmod(0o700)
    return FolderKeys(file.parent).find()


READERS: dict[str, tuple[Callable[[Path], object], type[Exception]]] = {
    "standing secret, connection string": (read_secret, PrivateFileError),
    "signing key, PIN": (lambda file: read_private(file, "PIN", 100), PrivateFileError),
    "folder of signing keys": (_keys, KeysError),
    "trust": (read_document, OSError),
    "TLS": (lambda file: read_tls(Tls(cert_file=str(file), key_file=str(file))), ConfigError),
    "authorities of a fetch": (lambda file: WebVerifier(str(file)).context(), FetchError),
}


@pytest.mark.parametrize("kind", READERS)
def test_nothing_is_read_where_everybody_could_put_it(way: Path, kind: str) -> None:
    """Each reader says what, where, and how to fix it."""
    read, error = READERS[kind]
    above = way.parent.parent
    above.chmod(0o777)

    with pytest.raises(error, match=f"folder `{above}` can be written by others .*chmod go-w"):
        read(way)


def test_a_file_that_everybody_can_write_is_refused(way: Path) -> None:
    """Its folder may be as it must be."""
    way.chmod(0o666)
    with pytest.raises(
        PermissionError, match=r"everybody can write to it \(mode 0666\); chmod o-w"
    ):
        open_checked(way, strict=False)


def test_authorities_that_everybody_can_write_are_refused(way: Path) -> None:
    """Their writer would choose the servers whose keys are trusted."""
    way.write_bytes(WebAuthority().pem)
    way.chmod(0o644)
    assert len(WebVerifier(str(way)).context().get_ca_certs()) == 1
    way.chmod(0o666)
    with pytest.raises(FetchError, match=r"everybody can write to it \(mode 0666\); chmod o-w"):
        WebVerifier(str(way)).context()


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\n"])
def test_a_file_without_authorities_does_not_stand_for_those_of_the_system(
    way: Path, content: bytes
) -> None:
    """`ssl` takes an empty `cadata` for none, and then trusts every public authority."""
    way.write_bytes(content)
    with pytest.raises(FetchError, match="cannot be read"):
        WebVerifier(str(way)).context()


# --- sockets


def test_a_socket_beneath_an_open_folder_is_refused(tmp_path: Path) -> None:
    """Whoever can replace its folder puts another socket there."""
    folder = tmp_path / "open" / "run"
    folder.mkdir(parents=True)
    folder.chmod(0o700)
    folder.parent.chmod(0o777)
    with pytest.raises(ConfigError, match="can be written by others"):
        prepare(folder / "authz.sock", "admin")


def test_a_socket_beneath_a_sticky_folder_is_made(tmp_path: Path) -> None:
    """Such as `/tmp`: nobody can replace a folder of ours in it."""
    folder = tmp_path / "sticky" / "run"
    folder.mkdir(parents=True)
    folder.chmod(0o700)
    folder.parent.chmod(0o1777)
    prepare(folder / "authz.sock", "admin")


def test_a_socket_behind_a_link_is_left_alone(tmp_path: Path) -> None:
    """The socket of somebody else would be cleared away, or asked."""
    tmp_path.chmod(0o700)
    target = tmp_path / "target.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(target))
    link = tmp_path / "authz.sock"
    link.symlink_to(target)

    with pytest.raises(ConfigError, match="is a symbolic link"):
        prepare(link, "admin")

    assert stat.S_ISSOCK(target.stat().st_mode)
    assert link.is_symlink()


@AS_ROOT
def test_a_socket_of_another_user_is_left_alone(tmp_path: Path) -> None:
    """Only a socket of ours is cleared away."""
    tmp_path.chmod(0o700)
    path = tmp_path / "authz.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    os.chown(path, OTHER, OTHER)

    with pytest.raises(ConfigError, match=f"belongs to user {OTHER}"):
        prepare(path, "admin")

    assert path.exists()
