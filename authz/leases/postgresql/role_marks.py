"""Names and comments of leased roles, by which a broker knows its own."""

import hashlib
import json
from dataclasses import dataclass
from typing import Final

from authz.leases.postgresql.role_grants import PREFIX

__all__ = ["RoleMarks", "holder_mark"]

_NAME_DIGITS: Final = 40
_HOLDER_DIGITS: Final = 16


@dataclass(frozen=True, slots=True)
class RoleMarks:
    """Names and comments of the roles of one broker."""

    owner: str
    """Name of this deployment among others that lease roles of the same server."""
    broker: str
    """Name of the broker."""

    def name_of(self, lease: str) -> str:
        """Return the name of a lease's role."""
        digest = hashlib.sha256(f"{self.owner}\0{self.broker}\0{lease}".encode()).hexdigest()
        return PREFIX + digest[:_NAME_DIGITS]

    def comment_of(self, lease: str, holder: str) -> str:
        """Return the comment of a lease's role. `holder`: the agent that gets the secret, or empty."""
        mark = {"authz": self.owner, "broker": self.broker, "lease": lease}
        return json.dumps({**mark, "holder": _digest_of(holder)} if holder else mark)

    def lease_of(self, role: str, comment: str) -> str | None:
        """Return the lease in the comment of a role; `None` for a role of another deployment."""
        try:
            fields = json.loads(comment)
            lease = str(fields["lease"])
            is_ours = (fields["authz"], fields["broker"]) == (self.owner, self.broker)
        except (ValueError, LookupError, TypeError, RecursionError):
            return None
        # A user who can write a comment cannot have another role dropped: the name follows from the lease.
        return lease if is_ours and role == self.name_of(lease) else None


def holder_mark(holder: str) -> str:
    """Return the part of a comment that all roles of one holder have."""
    return f'"holder": "{_digest_of(holder)}"'


def _digest_of(holder: str) -> str:
    return hashlib.sha256(holder.encode()).hexdigest()[:_HOLDER_DIGITS]
