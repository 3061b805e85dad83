"""Offline tools: what the `authz` command does besides serving."""
