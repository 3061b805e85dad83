"""The watch of files: nothing falls between what was read and the beginning of the watch."""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from authz.config import Log
from authz.server.file_watch import FileWatch
from authz.telemetry import make_logger
from tests.support.waiting import eventually


class Reader:
    """Somebody who reads a file when told to."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.times = 0
        self.text = ""
        self()

    def __call__(self) -> None:
        """Reads it."""
        self.text = self.file.read_text()
        self.times += 1


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    """Has read a bundle of one file."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "bundle.yaml").write_text("one")
    return Reader(folder / "bundle.yaml")


@contextmanager
def watching(reader: Reader) -> Iterator[None]:
    """Watches what was read, and stops."""
    watch = FileWatch((reader.file.parent,), reader, make_logger(Log(), io.StringIO()))
    watch.start()
    try:
        yield
    finally:
        watch.close()


def test_a_change_before_the_watch_began_is_seen(reader: Reader) -> None:
    """A server reads its bundle some time before it watches it."""
    reader.file.write_text("two")
    with watching(reader):
        eventually(lambda: reader.text == "two", what="the file is read again")


def test_each_later_change_is_seen(reader: Reader) -> None:
    """Also those after the first look."""
    with watching(reader):
        eventually(lambda: reader.times == 2, what="the first look")
        reader.file.write_text("two")
        eventually(lambda: reader.text == "two", what="the file is read again")
        reader.file.write_text("three")
        eventually(lambda: reader.text == "three", what="the file is read once more")


class Layout:
    """A bundle of one file behind links, and the way to replace it at once."""

    def __init__(self, folder: Path, link: str, bundle: str) -> None:
        self.folder = folder
        self.link = folder / link
        self.bundle = folder / bundle

    def publish(self, name: str, text: str, inner: str = ".") -> None:
        """Writes a release, and leads the link to it, as kubelet, git-sync and `ln -sfn` with `mv -T` do."""
        release = self.link.parent / name / inner
        release.mkdir(parents=True)
        (release / "bundle.yaml").write_text(text)
        aside = self.link.parent / "..data_tmp"
        aside.symlink_to(name)
        aside.rename(self.link)


@pytest.mark.parametrize(
    ("link", "bundle", "inner"),
    [
        ("bundle/..data", "bundle", "."),
        ("current", "current", "."),
        ("current", "current/deploy/bundle", "deploy/bundle"),
    ],
    ids=["config-map", "link", "link-above"],
)
def test_a_link_that_leads_to_the_next_bundle_is_followed(
    tmp_path: Path, link: str, bundle: str, inner: str
) -> None:
    """`..data` of a mounted ConfigMap, a link in place of the folder, and one above it, as git-sync makes."""
    layout = Layout(tmp_path, link, bundle)
    layout.link.parent.mkdir(exist_ok=True)
    layout.publish("..1", "one", inner)
    if layout.link.name == "..data":
        (layout.bundle / "bundle.yaml").symlink_to("..data/bundle.yaml")
    reader = Reader(layout.bundle / "bundle.yaml")
    with watching(reader):
        eventually(lambda: reader.times >= 2, what="the first look")
        layout.publish("..2", "two", inner)
        eventually(lambda: reader.text == "two", what="the link is followed")
        shutil.rmtree(layout.link.parent / "..1")
        layout.publish("..3", "three", inner)
        eventually(lambda: reader.text == "three", what="the link is followed again")
        (layout.link.parent / "..3" / inner / "bundle.yaml").write_text("four")
        eventually(lambda: reader.text == "four", what="the new folder is watched")


def test_a_key_behind_a_link_above_it_is_followed(tmp_path: Path, reader: Reader) -> None:
    """As the bundle is."""
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "jwks.json").write_text(name)
    (tmp_path / "keys").symlink_to("1")
    seen: list[str] = []
    file = tmp_path / "keys" / "jwks.json"
    log = make_logger(Log(), io.StringIO())
    watch = FileWatch((reader.file.parent, file), lambda: seen.append(file.read_text()), log)
    watch.start()
    try:
        eventually(lambda: seen == ["1"], what="the first look")
        (tmp_path / "new").symlink_to("2")
        (tmp_path / "new").rename(tmp_path / "keys")
        eventually(lambda: seen[-1] == "2", what="the link is followed")
    finally:
        watch.close()
