"""Requests through Envoy to web frameworks, and whether each of them understood what Authz judged.

In the order of a request: `generator` writes it (`ordinary`; `targets`, `headers`, `bodies` and `frames`, by the part that may
be read in two ways; `mutations` by chance), `exchange` sends it, `fanout` takes it from Envoy and gives the same bytes to each
framework that `frameworks` started (their programs are in `apps`), and `comparison` holds what each understood against the
audit's record.
"""
