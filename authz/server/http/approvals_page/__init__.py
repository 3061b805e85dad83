"""The approvals page: people log in and answer approvals.

A request passes these parts in this order:

** `protection` sets the headers of every response and refuses requests that another site sent.
** `page` has the handlers of approvals, `login_pages` those of login and logout, `passkey_pages` those of passkeys. They share `parts`.
** `sessions` keeps the logged-in browsers; `openid` logs people in at their issuer; `passkeys` makes and verifies WebAuthn ceremonies.
** `rendering` renders approvals as HTML with the files in `templates`; `live` sends changes to open pages.

`build` makes the page from the configuration. Only nodes that serve the page import it, because it loads large libraries.

The engine decides whether a person may answer. The page only proves the identity of the person, and the card that the person saw.
"""
