"""Servers that answer constant bytes: what the transport alone costs."""
