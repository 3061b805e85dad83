"""The bundle: its folder, read whole, compiled and tested before it serves."""

from authz.bundle.compile import Compiled, Failure, Outcome, compile_bundle, outcome
from authz.bundle.folder import MANIFEST, read_folder

__all__ = [
    "MANIFEST",
    "Compiled",
    "Failure",
    "Outcome",
    "compile_bundle",
    "outcome",
    "read_folder",
]
