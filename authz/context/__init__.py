"""The bundle: its folder, read whole, compiled and tested before it serves."""

from authz.context.bundle import CaseResult, Compiled, compile_bundle, own_tests
from authz.context.folder import MANIFEST, read_folder

__all__ = ["MANIFEST", "CaseResult", "Compiled", "compile_bundle", "own_tests", "read_folder"]
