"""Decides, at the moment of execution, whether an AI agent may perform one action."""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("authz-runtime")
"""Version of the distribution `authz-runtime`."""
