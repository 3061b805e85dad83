"""The page where people answer approvals.

A request passes these parts in this order:

* `protection` sets the headers of every answer and refuses requests that another site sent.
* `page` has the handlers of approvals, `login_pages` and `passkey_pages` those of their names. They share `parts`.
* `sessions` keeps who is logged in; `openid` logs people in at their issuer; `passkeys` makes and verifies WebAuthn ceremonies.
* `rendering` turns approvals into HTML by the files in `templates`; `live` tells open pages of changes.

`build` makes the page of a configuration. It is imported only where the page is served, since it loads large libraries.

The engine decides whether a person may answer. The page only proves who the person is, and what the person was shown.
"""
