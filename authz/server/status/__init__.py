"""Status of the node, for readiness, metrics, `authz status` and the log.

`trust_sources` and `recipient_lists` report on single sources, `readiness` puts all reports together, `readiness_log` logs changes
of it, and `mode_reminder` logs which parts of the bundle only observe.
"""
