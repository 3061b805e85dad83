"""Versions of requirements.lock, for packages that a test installs elsewhere."""

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]


def write_pins(folder: Path) -> Path:
    """Write a file of constraints for pip.

    Returns:
        The file, in the folder.
    """
    lock = (ROOT / "requirements.lock").read_text()
    pins = folder / "pins.txt"
    pins.write_text("\n".join(re.findall(r"(?m)^[A-Za-z0-9._-]+==[^ \\;]+", lock)) + "\n")
    return pins
