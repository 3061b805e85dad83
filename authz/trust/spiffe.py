"""SPIFFE's own sources of bundles: an endpoint that shows an X.509-SVID, and the Workload API."""

import base64
import importlib.util
import json
import ssl
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from authz.engine import is_usable_key
from authz.trust.fetch import FetchError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["SpiffeVerifier", "authorities_of", "has_workload_api", "workload_bundle"]

_MAX_TEXT: Final = 200


@dataclass(frozen=True, slots=True)
class SpiffeVerifier:
    """Verifies a server by its X.509-SVID and the authorities of its trust domain (the profile `https_spiffe`)."""

    spiffe_id: str
    """SPIFFE ID that the server must have."""
    authorities: tuple[bytes, ...]
    """Certificates of the trust domain's authorities, DER."""

    def context(self) -> ssl.SSLContext:
        """Return a context that knows only these authorities; raises FetchError if there are none."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # The identity of an SVID is its SPIFFE ID, which `check` compares. The host name does not count.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        # An authority may be one that another authority issued (X509-SVID §4.1).
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        loaded = 0
        for certificate in self.authorities:
            with suppress(ssl.SSLError):
                context.load_verify_locations(cadata=certificate)
                loaded += 1
        if not loaded:
            raise FetchError(
                "no authority of the endpoint's trust domain is known by which to verify it"
            )
        return context

    def check(self, certificate: bytes) -> None:
        """Compare the SPIFFE ID of the server's certificate (DER); raises FetchError if it is another."""
        try:
            read = x509.load_der_x509_certificate(certificate)
            extensions = read.extensions
            names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
            raise FetchError("its certificate is not an X.509-SVID") from error
        if uris != [self.spiffe_id]:
            shown = ", ".join(uris)[:_MAX_TEXT] or "nobody"
            raise FetchError(f"it is {shown}, not {self.spiffe_id}")
        if _signs(extensions):
            raise FetchError("its certificate is a signing certificate, no X.509-SVID of a server")


def _signs(extensions: x509.Extensions) -> bool:
    """Return whether a certificate may sign others, so that it never authenticates (X509-SVID §5.2)."""
    with suppress(x509.ExtensionNotFound):
        if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return True
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return usage.key_cert_sign or usage.crl_sign or not usage.digital_signature


def authorities_of(bundle: str) -> tuple[bytes, ...]:
    """Return the authorities of X.509-SVIDs of a SPIFFE bundle, DER; empty if the bundle cannot be read.

    An authority whose key is an Ed25519 point of small order is left out: anybody can sign for it (RFC 8725 §3.4), and the TLS library
    would accept it.
    """
    try:
        entries = [entry for entry in json.loads(bundle)["keys"] if entry.get("use") == "x509-svid"]
        certificates = [base64.b64decode(entry["x5c"][0], validate=True) for entry in entries]
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return ()
    return tuple(der for der in certificates if not _is_forgeable(der))


def _is_forgeable(der: bytes) -> bool:
    try:
        key = x509.load_der_x509_certificate(der).public_key()
    except (ValueError, UnsupportedAlgorithm):
        # The TLS library refuses an entry that is not a certificate.
        return False
    return isinstance(key, ed25519.Ed25519PublicKey) and not is_usable_key(_jwk(key))


def has_workload_api() -> bool:
    """Return whether the extra `workload` is installed."""
    return importlib.util.find_spec("spiffe") is not None


def workload_bundle(socket: str, domain: str, timeout: float) -> str:
    """Ask the Workload API for the bundle of a trust domain.

    Args:
        socket: `unix:///path`.
        domain: The trust domain of the agent, or one that it federates with.
        timeout: Seconds for each of two calls.

    Raises:
        FetchError: The API does not answer, or has no bundle of the domain.
    """
    import spiffe  # noqa: PLC0415 - an extra
    from spiffe.errors import PySpiffeError  # noqa: PLC0415

    try:
        name = spiffe.TrustDomain(domain)
        with closing(spiffe.WorkloadApiClient(socket, default_timeout=timeout)) as client:
            authorities = client.fetch_x509_bundles().get_bundle_for_trust_domain(name)
            keys = client.fetch_jwt_bundles().get_bundle_for_trust_domain(name)
    except PySpiffeError as error:
        reason = " ".join(str(error).split())[:_MAX_TEXT]
        raise FetchError(f"the Workload API gives no bundle: {reason}") from error
    if authorities is None and keys is None:
        raise FetchError(f"the Workload API has no bundle of `{domain}`")
    return _bundle(
        authorities.x509_authorities if authorities is not None else (),
        keys.jwt_authorities if keys is not None else {},
    )


def _bundle(authorities: "Iterable[x509.Certificate]", keys: dict[str, Any]) -> str:
    """Return a SPIFFE bundle. Equal keys give equal text."""
    entries = [{**_jwk(key), "kid": kid, "use": "jwt-svid"} for kid, key in keys.items()]
    for certificate in authorities:
        der = certificate.public_bytes(serialization.Encoding.DER)
        text = base64.b64encode(der).decode()
        with suppress(FetchError):
            entries.append({**_jwk(certificate.public_key()), "use": "x509-svid", "x5c": [text]})
    entries.sort(key=lambda entry: json.dumps(entry, sort_keys=True))
    return json.dumps({"keys": entries}, sort_keys=True)


def _jwk(key: object) -> dict[str, Any]:
    """Return the JWK of a public key; raises FetchError for a key of another kind."""
    jwk: dict[str, Any]
    if isinstance(key, ec.EllipticCurvePublicKey):
        jwk = ECAlgorithm.to_jwk(key, as_dict=True)
    elif isinstance(key, rsa.RSAPublicKey):
        jwk = RSAAlgorithm.to_jwk(key, as_dict=True)
    elif isinstance(key, ed25519.Ed25519PublicKey):
        jwk = OKPAlgorithm.to_jwk(key, as_dict=True)
    else:
        raise FetchError("a key is of a kind that is not known")
    jwk.pop("key_ops", None)
    return jwk
