"""Mistakes in bundles, and whether `authz check` names them."""
