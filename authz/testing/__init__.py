"""A bundle in a unit test: the real engine in this process, without server and network.

    from authz.testing import Kernel, Subject

    with Kernel.load("policy", variables={"trust_domain": "dev.example"}) as kernel:
        alice = Subject("alice", issuer="corp", claims={"groups": ["employees"]})
        bot = kernel.act("spiffe://dev.example/ns/support/sa/bot", alice)
        bot.permits("crm.search", {"query": "T-1"})
        bot.denies("crm.delete", {"id": "1"}, code="NOT_PERMITTED")

Credentials are real too: the kernel makes an authority for each trust domain and issuer that a test names. The fixture
stands in `authz.testing.plugin`.
"""

from authz.testing.kernel import Actor, Kernel, Subject

__all__ = ["Actor", "Kernel", "Subject"]
