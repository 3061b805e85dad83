"""HTTP listeners: `server` runs an ASGI application within bounds, the other modules are applications.

`observation` serves metrics and readiness; `oauth` serves task credentials, with `clients` (who calls) and `defects` (errors);
`approvals_page` serves the page where people answer approvals; `shared_signals` takes security events of identity providers.
"""
