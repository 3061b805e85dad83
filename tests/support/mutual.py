"""A server whose TLS listeners know their callers by certificate, and callers with certificates of any kind."""

import datetime as dt
import ipaddress
import json
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.minting import DOMAIN, OTHER_DOMAIN, Authority
from tests.support.server import Layout, Server, layout
from tests.support.svid import Signer, Svid
from tests.support.waiting import free_port

#: A tool server that asks about its own system, and proxies: one that may relay, and one that may not.
CRM_SERVER: Final = "spiffe://a.example/ns/tools/sa/crm"
RELAY: Final = "spiffe://a.example/ns/mesh/sa/gateway"
NO_RELAY: Final = "spiffe://a.example/ns/edge/sa/gateway"
ENFORCERS: Final[Sequence[Mapping[str, Any]]] = (
    {"name": "tools", "match": "spiffe://a.example/ns/tools/sa/*", "asks": ["system:wiki"]},
    {"name": "crm-tool", "match": CRM_SERVER, "asks": ["system:crm"]},
    {
        "name": "mesh",
        "match": "spiffe://a.example/ns/mesh/sa/*",
        "asks": ["system:*"],
        "relays": ["principal"],
    },
    {"name": "edge", "match": "spiffe://a.example/ns/edge/sa/*", "asks": ["system:*"]},
)
#: Listeners of the two lanes.
MUTUAL: Final = ("mutual", "mutual-fast")
#: Unix sockets of an enforcer that may relay.
SOCKETS: Final = ("relay", "relay-fast")

Made = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def certificate(name: str, issuer: Made | None) -> Made:
    """Makes a certificate: an authority where no issuer is given, else a leaf for loopback."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
    )
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256()), key


def write(folder: Path, name: str, made: Made) -> None:
    """Writes certificate and key as PEM files."""
    pem = serialization.Encoding.PEM
    (folder / f"{name}.pem").write_bytes(made[0].public_bytes(pem))
    (folder / f"{name}.key").write_bytes(
        made[1].private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


class Pki:
    """Authorities of two trust domains and of no one, which the TLS library all knows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.a = Signer.authority(DOMAIN)
        self.b = Signer.authority(OTHER_DOMAIN)
        self.root = certificate("root", None)
        write(folder, "root", self.root)
        write(folder, "server", certificate("server", self.root))
        roots = self.a.pem + self.b.pem + (folder / "root.pem").read_bytes()
        self.clients = folder / "clients.pem"
        self.clients.write_bytes(roots)

    @property
    def tls(self) -> dict[str, str]:
        """Certificate and key of the server."""
        return {
            "cert_file": str(self.folder / "server.pem"),
            "key_file": str(self.folder / "server.key"),
        }

    def trust(self, place: Layout) -> None:
        """Adds the authorities to the bundles of their domains."""
        for domain, signer in ((DOMAIN, self.a), (OTHER_DOMAIN, self.b)):
            file = Path(place.config["trust"]["domains"][domain]["bundle"]["file"])
            bundle = json.loads(file.read_text())
            bundle["keys"].append(signer.jwk)
            file.write_text(json.dumps(bundle))

    def credentials(self, svid: Svid, *intermediates: Signer) -> grpc.ChannelCredentials:
        """Returns what a caller shows, and trusts."""
        chain = svid.pem + b"".join(signer.pem for signer in intermediates)
        root = (self.folder / "root.pem").read_bytes()
        return grpc.ssl_channel_credentials(root, svid.key_pem, chain)

    def context(self, name: str, svid: Svid, protocol: str = "h2") -> ssl.SSLContext:
        """Returns the same for Python's own TLS."""
        file = self.folder / f"{name}.pem"
        file.write_bytes(svid.key_pem + svid.pem)
        context = ssl.create_default_context(cafile=str(self.folder / "root.pem"))
        context.load_cert_chain(file)
        context.set_alpn_protocols([protocol])
        return context


def mutual_layout(
    folder: Path, authority: Authority, pki: Pki, changes: Mapping[str, Any] | None = None
) -> Layout:
    """Lays out a server of the `desk` bundle with a mutual TLS listener and a relaying socket in each lane.

    Args:
        folder: Where its files go.
        authority: Whose tokens are trusted.
        pki: Whose certificates are.
        changes: Merged into the configuration.

    Returns:
        The layout.
    """
    place = layout(folder, authority, "desk", changes)
    tls = {**pki.tls, "client_ca_file": str(pki.clients)}
    for name in MUTUAL:
        place.config["listeners"][name] = {
            "address": f"127.0.0.1:{free_port()}",
            "tls": tls,
            "lane": "fast" if name.endswith("-fast") else "python",
        }
    for name in SOCKETS:
        place.config["listeners"][name] = {
            "address": f"unix://{place.sockets / name}.sock",
            "lane": "fast" if name.endswith("-fast") else "python",
        }
    relays = [
        {"name": name, "listener": name, "asks": ["system:*"], "relays": ["principal"]}
        for name in SOCKETS
    ]
    place.config["enforcers"] = [*place.config["enforcers"], *ENFORCERS, *relays]
    place.write()
    pki.trust(place)
    return place


def call(
    server: Server,
    listener: str,
    credentials: grpc.ChannelCredentials,
    method: str,
    request: bytes,
    *metadata: tuple[str, str],
) -> bytes:
    """Sends raw bytes on a connection of its own; returns raw bytes."""
    options = (("grpc.use_local_subchannel_pool", 1),)
    with grpc.secure_channel(server.address(listener), credentials, options) as channel:
        send: Any = channel.unary_unary(f"/{method}")
        answer: bytes = send(request, timeout=30, metadata=metadata)
    return answer
