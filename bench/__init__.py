"""Measurements: load on the servers, parts of the kernel, reload, and the floor beneath them."""
