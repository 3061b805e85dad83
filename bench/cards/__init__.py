"""How well the card tells a call that was tampered with from an ordinary one: [README.md](README.md)."""
