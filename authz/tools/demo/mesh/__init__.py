"""The demo of a mesh: MCP servers behind a gateway, and an agent that knows nothing of Authz."""

from authz.tools.demo.mesh.run import AgentCall, JudgedCall, Mesh, Step

__all__ = ["AgentCall", "JudgedCall", "Mesh", "Step"]
