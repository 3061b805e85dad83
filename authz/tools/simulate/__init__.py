"""A session taken through a bundle, step by step.

`session` has the steps, `audit_session`, `call_lines` and `mcp_log` read them from an audit log, from JSON lines of calls and from
messages of MCP, and `simulation` takes them through the bundle's engine.
"""

from authz.tools.simulate.audit_session import read_audit_session
from authz.tools.simulate.call_lines import read_call_lines
from authz.tools.simulate.mcp_log import read_mcp_log
from authz.tools.simulate.session import Caller, SessionError, SessionReading, SessionStep
from authz.tools.simulate.simulation import Simulation, simulate

__all__ = [
    "Caller",
    "SessionError",
    "SessionReading",
    "SessionStep",
    "Simulation",
    "read_audit_session",
    "read_call_lines",
    "read_mcp_log",
    "simulate",
]
