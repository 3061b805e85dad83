"""The fast lane: `server` starts the Rust server, `tls` gives it renewed certificates."""
