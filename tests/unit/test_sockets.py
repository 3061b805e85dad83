"""Unix sockets: the folder decides who may ask, so it must not be open to everyone."""

from __future__ import annotations

import socket
import stat
from typing import TYPE_CHECKING

import pytest

from authz.errors import ConfigError
from authz.server.sockets import prepare, private

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("mode", [0o777, 0o755, 0o701, 0o770, 0o720])
def test_a_folder_that_is_too_open_is_refused(tmp_path: Path, mode: int) -> None:
    """Whoever may enter it may ask; whoever may write to it may put another socket there."""
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(mode)

    with pytest.raises(ConfigError, match=f"has mode {mode:04o}"):
        prepare(folder / "authz.sock", "sidecar")


@pytest.mark.parametrize("mode", [0o700, 0o750])
def test_owner_and_group_may_be_let_in(tmp_path: Path, mode: int) -> None:
    """The group is who may ask."""
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(mode)

    prepare(folder / "authz.sock", "sidecar")


def test_a_new_folder_is_private(tmp_path: Path) -> None:
    """Made with mode 0700."""
    prepare(tmp_path / "run" / "authz.sock", "sidecar")

    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700


def test_a_socket_that_nobody_serves_is_cleared_away(tmp_path: Path) -> None:
    """As a killed server leaves it."""
    tmp_path.chmod(0o700)
    path = tmp_path / "authz.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    prepare(path, "sidecar")

    assert not path.exists()


def test_a_socket_that_is_served_is_left_alone(tmp_path: Path) -> None:
    """A second server refuses to start."""
    tmp_path.chmod(0o700)
    path = tmp_path / "authz.sock"
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(path))
        live.listen()

        with pytest.raises(ConfigError, match="another process serves listener `sidecar`"):
            prepare(path, "sidecar")

    assert path.exists()


def test_a_file_is_never_deleted(tmp_path: Path) -> None:
    """A wrong path must not cost data."""
    tmp_path.chmod(0o700)
    path = tmp_path / "authz.sock"
    path.write_text("precious")

    with pytest.raises(ConfigError, match="a file that is not a socket"):
        prepare(path, "sidecar")

    assert path.read_text() == "precious"


@pytest.mark.parametrize(("shared", "mode"), [(True, 0o660), (False, 0o600)])
def test_sockets_are_made_for_owner_and_group_only(
    tmp_path: Path, *, shared: bool, mode: int
) -> None:
    """The administration socket for its owner alone."""
    path = tmp_path / "authz.sock"
    with socket.socket(socket.AF_UNIX) as made, private(shared=shared):
        made.bind(str(path))

    assert stat.S_IMODE(path.stat().st_mode) == mode
