"""`authz demo`: calls to a node and an Envoy in a temporary trust domain, in one table."""

from authz.tools.demo.run import Demo, HeadlineRow, Row

__all__ = ["Demo", "HeadlineRow", "Row"]
