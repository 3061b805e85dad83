"""Runs `authz demo … --keep` until a test has tried what it printed."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST_S = 200


@contextmanager
def kept(folder: Path, *options: str) -> Iterator[tuple[str, str]]:
    """Runs the demo, and interrupts it afterwards.

    Args:
        folder: Folder for its output.
        options: Its options, with `--keep`.

    Yields:
        Its standard output and its standard error, up to the line that says that it keeps running, or to its end.
    """
    printed = folder / "stdout"
    with printed.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "authz", "demo", *options],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
        )
    stopper = threading.Timer(LONGEST_S, process.kill)
    stopper.start()
    try:
        assert process.stderr is not None
        notes = ""
        for line in process.stderr:
            notes += line
            if "running; press Ctrl-C" in line:
                break
        yield printed.read_text(), notes
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        stopper.cancel()
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def outputs(text: str, part: str) -> list[str]:
    """Runs each printed command that has a part, and returns what they print."""
    lines = text.splitlines()
    folder = next(line for line in lines if line.startswith("cd "))
    return [
        subprocess.run(
            ["bash", "-c", f"{folder} && {line}"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        for line in lines
        if part in line
    ]
