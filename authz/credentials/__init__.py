"""Credentials that exist because of one permit, and end with their task."""
