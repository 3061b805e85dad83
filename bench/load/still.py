"""What `native/lane/examples/checks.rs` reads: a bundle, trusted keys, and requests, for counting instructions.

`python -m bench.load.still FOLDER [POLICIES] [session]` writes them, as the servers are measured with; tokens last three hours.
With `session` every request changes the session of its caller: each call is a step of a rule over the order of events.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

from bench.load import bundle, credentials, requests
from bench.load.matrix import MIDDLE

# Neither policy fires, and no request completes a sequence: the counted call is a permit.
_SESSION_POLICIES = """\
@id("session-labels") @reason("sealed data was read")
forbid(principal, action, resource) when { context.session.labels.contains(Label::"sealed") };
@id("session-sequence") @reason("a step came before")
forbid(principal, action, resource)
when { context.sequences.contains(Sequence::"call-then-last") && context.chain.depth > 8 };
"""


def write(root: Path, folder: Path, policies: int, *, session: bool = False) -> None:
    """Writes everything.

    Args:
        root: of the repository.
        folder: made if it does not exist.
        policies: size of the bundle.
        session: whether every request changes the session of its caller.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = bundle.write(folder / "bundle", policies)
    if session:
        written = _remember(written)
    minted = credentials.mint(folder / "trust")
    (folder / "trust.json").write_text(json.dumps(minted.trust()))
    protos = requests.compile_protos(root, folder / "protos.bin")
    for surface in requests.METHODS:
        asked = requests.messages(protos, surface, written, minted)
        requests.write(folder / f"{surface}.bin", asked)


def _remember(written: bundle.Bundle) -> bundle.Bundle:
    """Adds a sequence that each call but the last operation's moves on, and leaves that operation out of the requests."""
    *steps, last = written.operations
    # With a window each call moves the time of its step.
    sequence = {"never": last, "after": steps, "within": "1h"}
    (written.folder / "history.yaml").write_text(
        json.dumps({"sequences": {"call-then-last": sequence}}) + "\n"
    )
    (written.folder / "policies" / "history.cedar").write_text(_SESSION_POLICIES)
    return replace(written, operations=tuple(steps))


def main(arguments: list[str]) -> None:
    """Writes into the folder that the first argument names.

    Args:
        arguments: the folder, and perhaps the size of the bundle and `session`.
    """
    folder, *others = arguments
    root = Path(__file__).resolve().parent.parent.parent
    sizes = [int(one) for one in others if one != "session"]
    policies = sizes[0] if sizes else MIDDLE
    write(root, Path(folder), policies, session="session" in others)


if __name__ == "__main__":
    main(sys.argv[1:])
