"""Puts a build that counts what runs under load, for the release build to be guided by.

    python -m bench.train

`make profile` builds what it needs. It does what `bench.run` measures, shortly; what it prints of that is no measurement. Exit
status 1: something could not be run, or was answered wrongly.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from bench import credentials, run
from bench.load.engines import on_each
from bench.load.ghz import LoadError
from bench.load.matrix import QUICK
from bench.load.process import ProcessError
from bench.load.server import Paths

_PATIENCE = 600
# Of each a few thousand: more would change nothing in which branch is taken more often.
_CHECKS = {"tasks": 64, "pairs": 3, "calls": 1_000}


def main() -> int:
    """Runs the loads.

    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(
        prog="python -m bench.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--extension", type=Path, required=True, help="folder of the build")
    parser.add_argument("--fast-floor", type=Path, required=True, help="the fast lane's floor")
    parser.add_argument("--ghz", type=Path, required=True, help="the load generator")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="authz-train-") as work:
            _train(
                Paths(
                    root=run.ROOT,
                    work=Path(work),
                    extension=arguments.extension.resolve(),
                    fast_floor=arguments.fast_floor.resolve(),
                    ghz=arguments.ghz.resolve(),
                )
            )
    except (run.RunError, LoadError, ProcessError, credentials.CredentialsError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    return 0


def _train(paths: Paths) -> None:
    run.servers(paths, QUICK, {}, ("load", "reload"))
    credentials.run(paths, credentials.QUICK, run.say)
    for module in ("checks", "remembering"):
        on_each(
            paths,
            f"bench.load.{module}",
            module,
            {"embedded": None},
            _CHECKS,
            say=run.say,
            patience=_PATIENCE,
        )


if __name__ == "__main__":
    sys.exit(main())
