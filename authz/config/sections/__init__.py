"""Sections of the configuration, one module each: its keys, its rules, and its settings of the engine.

Modules import only those above them in this list: `bundle`, `audit`, `log`, `state`; `sources`, `trust`, `recipient_lists`;
`listeners`, `enforcers`, `limits`, `guards`; `brokers`, `credentials`; `approvals`.
"""
