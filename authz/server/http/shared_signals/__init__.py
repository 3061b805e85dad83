"""Security events that identity providers push (OpenID Shared Signals Framework, RFC 8935).

An event passes the modules in this order: `endpoint` (body, rate, `authorization`), `tokens` (the token, RFC 8417), `subjects` (whom it
is about, RFC 9493), `events` (what it tells, CAEP), and then the engine. `keys` holds the keys of the transmitters, `counts` the metrics,
and `receiver` puts the parts together. `refusals` has the errors of RFC 8935.
"""

from authz.server.http.shared_signals.receiver import SignalReceiver

__all__ = ["SignalReceiver"]
