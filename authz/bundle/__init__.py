"""The bundle: `folder` reads its files, `compile` makes a plan of them that has passed the bundle's own tests."""

from authz.bundle.compile import (
    CompiledBundle,
    TestFailure,
    TestResults,
    compile_bundle,
    read_results,
)
from authz.bundle.folder import MANIFEST, read_folder, seal_folder

__all__ = [
    "MANIFEST",
    "CompiledBundle",
    "TestFailure",
    "TestResults",
    "compile_bundle",
    "read_folder",
    "read_results",
    "seal_folder",
]
