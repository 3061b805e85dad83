"""Catalogs of MCP servers: from `tools/list` to reviewed operations.

What a server says is data. Nothing here believes a description, and no hint makes an operation look safer.
"""
