"""The workload, and the load generator that sends it."""
