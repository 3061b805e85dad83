"""`authz demo`: a throw-away trust domain, a real node, a real Envoy, real calls, one table."""

from authz.tools.demo.run import Demo, Row

__all__ = ["Demo", "Row"]
