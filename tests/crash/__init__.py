"""Kills a server at random moments under load, and holds what is left against what its client was answered."""
