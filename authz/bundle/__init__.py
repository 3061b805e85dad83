"""The bundle: its folder, read whole, compiled and tested before it serves."""

from authz.bundle.compile import (
    CompiledBundle,
    TestFailure,
    TestResults,
    compile_bundle,
    read_results,
)
from authz.bundle.folder import MANIFEST, read_folder

__all__ = [
    "MANIFEST",
    "CompiledBundle",
    "TestFailure",
    "TestResults",
    "compile_bundle",
    "read_folder",
    "read_results",
]
