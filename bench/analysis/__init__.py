"""Time and memory of `authz-analyze` over bundles of growing size."""
