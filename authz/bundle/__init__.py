"""The bundle: `folder` reads its files, `check` looks for mistakes, `compile` makes a plan that has passed the bundle's own tests."""

from authz.bundle.check import CheckedBundle, CheckFacts, check_bundle, with_stand_ins
from authz.bundle.compile import (
    CompiledBundle,
    TestFailure,
    TestResults,
    compile_bundle,
    read_results,
)
from authz.bundle.corrections import corrected, differences, write_corrections
from authz.bundle.coverage import (
    COVERAGE_KINDS,
    CoveredPart,
    PartReach,
    TestCoverage,
    percent_of,
    read_coverage,
)
from authz.bundle.folder import MANIFEST, read_folder, seal_folder

__all__ = [
    "COVERAGE_KINDS",
    "MANIFEST",
    "CheckFacts",
    "CheckedBundle",
    "CompiledBundle",
    "CoveredPart",
    "PartReach",
    "TestCoverage",
    "TestFailure",
    "TestResults",
    "check_bundle",
    "compile_bundle",
    "corrected",
    "differences",
    "percent_of",
    "read_coverage",
    "read_folder",
    "read_results",
    "seal_folder",
    "with_stand_ins",
    "write_corrections",
]
