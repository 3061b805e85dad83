"""Example patches of docs/contributing: each extends the code by one plausible thing, and tests it."""
