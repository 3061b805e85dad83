"""`authz keys make --bundle`: keys and a configuration that serve a bundle on this machine."""

from pathlib import Path

import pytest

from authz.cli import main
from authz.config import load_with_origins


def run(*arguments: object) -> int:
    """Run the command in this process, and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


@pytest.mark.parametrize("name", ["bundle", "a bundle: {x}"])
def test_the_configuration_serves_the_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Keys and bundle are valid, also where the folder's name has characters of YAML."""
    assert run("init", tmp_path / name) == 0
    made = run(
        *("keys", "make", tmp_path / "dev", "--domain", "a.example"),
        *("--bundle", tmp_path / name),
    )
    assert made == 0
    assert f"Next: authz serve --config {tmp_path / 'dev' / 'config.yaml'}" in (
        capsys.readouterr().err
    )
    assert run("config", "validate", "--files", "--config", tmp_path / "dev" / "config.yaml") == 0
    printed = capsys.readouterr().out
    assert "the keys are valid" in printed
    assert "the bundle is valid: support-desk" in printed


def test_every_listener_is_on_this_machine(tmp_path: Path) -> None:
    """Tokens of development keys are no protection."""
    (tmp_path / "bundle").mkdir()
    assert run("keys", "make", tmp_path / "dev", "--bundle", tmp_path / "bundle") == 0
    config = load_with_origins(tmp_path / "dev" / "config.yaml", {}, working_folder=tmp_path).config
    named = config.listeners
    assert named.http is None
    listeners = [*named.decisions.values(), named.admin, named.metrics]
    addresses = [str(listener.address) for listener in listeners if listener is not None]
    assert len(addresses) == 3
    assert all(address.startswith(("127.0.0.1:", "unix:")) for address in addresses)


def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second run, and a bundle that is not there, are errors with a fix."""
    (tmp_path / "bundle").mkdir()
    command = ("keys", "make", tmp_path / "dev", "--bundle")
    assert run(*command, tmp_path / "none") == 1
    assert f"write a bundle: authz init {tmp_path / 'none'}" in capsys.readouterr().err
    assert run(*command, tmp_path / "bundle") == 0
    (tmp_path / "dev" / "config.yaml").write_text("mine")
    assert run(*command, tmp_path / "bundle") == 1
    assert "config.yaml exists; remove it" in capsys.readouterr().err
    assert (tmp_path / "dev" / "config.yaml").read_text() == "mine"
