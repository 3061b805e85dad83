"""What `native/lane/examples/checks.rs` reads: a bundle, whom to trust, and requests, for counting instructions.

`python -m bench.load.still FOLDER [POLICIES]` writes them, as the servers are measured with; tokens last three hours.
"""

import json
import sys
from pathlib import Path

from bench.load import bundle, credentials, requests
from bench.load.matrix import MIDDLE


def write(root: Path, folder: Path, policies: int) -> None:
    """Writes everything.

    Args:
        root: of the repository.
        folder: made if it does not exist.
        policies: size of the bundle.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = bundle.write(folder / "bundle", policies)
    minted = credentials.mint(folder / "trust")
    (folder / "trust.json").write_text(json.dumps(minted.trust()))
    protos = requests.compile_protos(root, folder / "protos.bin")
    for surface in requests.METHODS:
        asked = requests.messages(protos, surface, written, minted)
        requests.write(folder / f"{surface}.bin", asked)


def main(arguments: list[str]) -> None:
    """Writes into the folder that the first argument names.

    Args:
        arguments: the folder, and perhaps the size of the bundle.
    """
    folder, *policies = arguments
    root = Path(__file__).resolve().parent.parent.parent
    write(root, Path(folder), int(policies[0]) if policies else MIDDLE)


if __name__ == "__main__":
    main(sys.argv[1:])
