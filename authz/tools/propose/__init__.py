"""`authz propose`: from what the audit saw to a change of the bundle that somebody reviews."""

from authz.tools.propose.draft import Draft, draft
from authz.tools.propose.names import BundleNames
from authz.tools.propose.observations import Observations

__all__ = ["BundleNames", "Draft", "Observations", "draft"]
