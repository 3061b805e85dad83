"""The gRPC server of the Python lane.

A call passes `listener` (bind, options), `receiving` (receive the message within bounds), `executor` (wait for a thread, or be
shed), then `decisions` (Check), `unary` (every other method), `access_log`, `approvals` or `admin`, and leaves as bytes or by
`errors`. `watching` keeps streams of approvals open without a thread for each.
`receipts` chooses which calls are received, by their `peers`, and only `grpcio_internals` uses private names of grpcio.
`health` answers health checks and reflection on threads of its own; `probes` measures how long calls wait.
"""
