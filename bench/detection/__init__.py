"""Honest and hijacked tasks of agents, played on simulated back ends: what a bundle is measured by."""
