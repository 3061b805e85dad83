"""Fills a folder with the wheels of a container: `python scripts/container_dist.py FOLDER [WHEEL…]`.

The wheels that are given are Authz's own. All others are downloaded in the versions of requirements.lock, and each must have a digest
that stands there.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
EXTRAS: Final = ("otel", "pkcs11", "postgresql", "s3", "workload")
"""Extras that the container has, as in deploy/container/Containerfile."""
_PIN: Final = re.compile(r"(?m)^([A-Za-z0-9._-]+)==([^ \\;]+)")
_OWN: Final = "authz-client"


def requirements() -> list[str]:
    """Requirements of the server, the client and the extras, as in the pyproject files."""
    server = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    client = tomllib.loads((ROOT / "client/pyproject.toml").read_text())["project"]
    wanted = [*server["dependencies"], *client["dependencies"]]
    for extra in EXTRAS:
        wanted += server["optional-dependencies"][extra]
    return [one for one in wanted if not re.match(rf"{_OWN}\b", one)]


def download(folder: Path, lock: str) -> None:
    """Download the wheels, and check their digests.

    Raises:
        SystemExit: A wheel is not that of the lock.
    """
    pins = folder / "pins.txt"
    pins.write_text("".join(f"{name}=={version}\n" for name, version in _PIN.findall(lock)))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:"]
    subprocess.run(
        [*command, "--constraint", str(pins), "--dest", str(folder), *requirements()], check=True
    )
    pins.unlink()
    digests = set(re.findall(r"--hash=sha256:([0-9a-f]{64})", lock))
    for wheel in sorted(folder.iterdir()):
        if hashlib.sha256(wheel.read_bytes()).hexdigest() not in digests:
            sys.exit(f"{wheel.name} is not the file of requirements.lock")


def main(folder: Path, own: list[Path]) -> None:
    """Fill the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    download(folder, (ROOT / "requirements.lock").read_text())
    for wheel in own:
        shutil.copy(wheel, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]])
