"""`authz propose`: from recorded decisions to a draft of a change of the bundle."""

from authz.tools.propose.draft import Draft, draft
from authz.tools.propose.names import BundleNames
from authz.tools.propose.observations import Observations

__all__ = ["BundleNames", "Draft", "Observations", "draft"]
