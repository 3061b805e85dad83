"""The watch of files: nothing falls between what was read and the beginning of the watch."""

import io
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
