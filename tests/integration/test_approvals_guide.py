"""The commands of the guide to approvals work as printed, on the node that they speak of."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.readme import blocks, copy_tree, matches
from tests.support.server import command
from tests.support.waiting import eventually, free_port

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs/guides/approvals.md"
# Commands whose call depends on an answer that a person gives at a terminal.
AFTER_ANSWER = re.compile(
    r"^<!-- not run: the test of this page runs it after (approve|reject) -->\n```sh\n(.*?)^```\n\n```text\n(.*?)^```",
    re.MULTILINE | re.DOTALL,
)
IDS = re.compile(r"/a/\w+-(\d+)")


@dataclass
class Reader:
    """Somebody who follows the guide in a copy of the tree."""

    folder: Path
    ports: dict[str, str] = field(
        default_factory=lambda: {port: str(free_port()) for port in ("9191", "8282", "8383")}
    )

    def run(self, commands: str) -> str:
        """Runs commands, and returns what they print, with the ports of the guide."""
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "AUTHZ_ADMIN": f"unix:{self.folder}/dev/run/admin.sock",
            "COLUMNS": "150",
            "NO_COLOR": "1",
        }
        for port, ours in self.ports.items():
            commands = commands.replace(f":{port}", f":{ours}")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        printed = done.stdout
        for port, ours in self.ports.items():
            printed = printed.replace(f":{ours}", f":{port}")
        return printed

    def serve(self) -> Iterator[None]:
        """Runs the node while the commands run."""
        config = self.folder / "dev/config.yaml"
        text = config.read_text()
        for port, ours in self.ports.items():
            text = text.replace(f":{port}", f":{ours}")
        config.write_text(text)
        log = self.folder / "serve.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*command(), "serve", "--config", str(config)],
                cwd=self.folder,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        try:
            eventually(lambda: re.search(r"\bready\b", log.read_text()), what="it serves")
            yield
        finally:
            process.terminate()
            process.wait(15)

    def answer(self, verb: str) -> None:
        """Answers the only open approval as a program does, with the card's digest."""
        (waiting,) = json.loads(self.run("authz approval list --format json"))["approvals"]
        card = json.loads(self.run(f"authz approval show {waiting['id']} --format json"))
        reason = " --reason no_invoice" if verb == "reject" else ""
        self.run(
            f"authz approval {verb} {waiting['id']} --yes --digest {card['card_digest']}{reason}"
        )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_guide(tmp_path: Path) -> None:
    """Each block in order; what is printed is what the page says."""
    reader = Reader(tmp_path / "authz")
    copy_tree(ROOT, reader.folder)
    text = GUIDE.read_text()
    until_served, answered, afterwards = _parts(text)
    for block in blocks(until_served):
        printed = reader.run(block.commands)
        assert block.output is None or matches(block.output, printed), printed
    answers = AFTER_ANSWER.findall(answered)
    assert [verb for verb, _, _ in answers] == ["approve", "reject"]
    for _ in reader.serve():
        for block in blocks(answered):
            printed = reader.run(block.commands)
            assert block.output is None or matches(block.output, printed), printed
        for verb, commands, output in answers:
            reader.answer(verb)
            printed = reader.run(commands)
            assert IDS.sub(r"/a/\1", printed) == IDS.sub(r"/a/\1", output)
        for block in blocks(afterwards):
            printed = reader.run(block.commands)
            assert block.output is None or matches(block.output, printed), printed


def _parts(text: str) -> tuple[str, str, str]:
    """What comes before the node serves, until all calls by the command are answered, and the rest."""
    before, call, rest = text.partition("## 3. ")
    waiting, page, end = rest.partition("## 5. ")
    assert call
    assert page
    return before, waiting, end
