"""Bundles by SPIFFE's own ways: an endpoint that shows an X.509-SVID, and the Workload API."""

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

_MAX_SAID: Final = 200


@dataclass(frozen=True, slots=True)
class SpiffeVerifier:
    """By an X.509-SVID, verified by the authorities of its own trust domain (the profile `https_spiffe`)."""

    spiffe_id: str
    """Whose it must be."""
    authorities: tuple[bytes, ...]
    """Certificates of the trust domain's authorities, in DER."""

    def context(self) -> ssl.SSLContext:
        """Make a context that knows these authorities and no others.

        Returns:
            The context.

        Raises:
            FetchError: There are none.
        """
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        # An SVID says who it is by its SPIFFE ID, which `check` compares; the host does not matter.
        made.check_hostname = False
        made.verify_mode = ssl.CERT_REQUIRED
        # An authority may be one that another authority issued (X509-SVID §4.1).
        made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        known = 0
        for certificate in self.authorities:
            with suppress(ssl.SSLError):
                made.load_verify_locations(cadata=certificate)
                known += 1
        if not known:
            raise FetchError(
                "no authority of the endpoint's trust domain is known by which to verify it"
            )
        return made

    def check(self, certificate: bytes) -> None:
        """Look who the server is.

        Args:
            certificate: Its own, in DER.

        Raises:
            FetchError: It is not the endpoint.
        """
        try:
            read = x509.load_der_x509_certificate(certificate)
            extensions = read.extensions
            names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
            raise FetchError("its certificate is no X.509-SVID") from error
        if uris != [self.spiffe_id]:
            told = ", ".join(uris)[:_MAX_SAID] or "nobody"
            raise FetchError(f"it is {told}, not {self.spiffe_id}")
        if _signs(extensions):
            raise FetchError("its certificate is a signing certificate, no X.509-SVID of a server")


def _signs(extensions: x509.Extensions) -> bool:
    """Whether a certificate may sign others, so that it never authenticates (X509-SVID §5.2)."""
    with suppress(x509.ExtensionNotFound):
        if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return True
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return usage.key_cert_sign or usage.crl_sign or not usage.digital_signature


def authorities_of(bundle: str) -> tuple[bytes, ...]:
    """Read the authorities of X.509-SVIDs from a bundle.

    Args:
        bundle: A SPIFFE bundle.

    Returns:
        Their certificates in DER; none where it cannot be read. Those are left out whose key is an Ed25519 point of small
        order, for which anybody can sign (RFC 8725 §3.4): the TLS library would take them.
    """
    try:
        entries = [entry for entry in json.loads(bundle)["keys"] if entry.get("use") == "x509-svid"]
        found = [base64.b64decode(entry["x5c"][0], validate=True) for entry in entries]
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return ()
    return tuple(der for der in found if not _is_forgeable(der))


def _is_forgeable(der: bytes) -> bool:
    try:
        key = x509.load_der_x509_certificate(der).public_key()
    except (ValueError, UnsupportedAlgorithm):
        # What is no certificate, the TLS library refuses.
        return False
    return isinstance(key, ed25519.Ed25519PublicKey) and not is_usable_key(_jwk(key))


def has_workload_api() -> bool:
    """Tell whether the extra `workload` is installed.

    Returns:
        Whether the Workload API can be spoken to.
    """
    return importlib.util.find_spec("spiffe") is not None


def workload_bundle(socket: str, domain: str, timeout: float) -> str:
    """Ask the Workload API for the bundle of a trust domain.

    Args:
        socket: `unix:///path`.
        domain: The trust domain: that of the agent, or one that it federates with.
        timeout: Seconds for each of two calls.

    Returns:
        A SPIFFE bundle.

    Raises:
        FetchError: It could not be had.
    """
    import spiffe  # noqa: PLC0415 - an extra
    from spiffe.errors import PySpiffeError  # noqa: PLC0415

    try:
        name = spiffe.TrustDomain(domain)
        with closing(spiffe.WorkloadApiClient(socket, default_timeout=timeout)) as client:
            authorities = client.fetch_x509_bundles().get_bundle_for_trust_domain(name)
            keys = client.fetch_jwt_bundles().get_bundle_for_trust_domain(name)
    except PySpiffeError as error:
        said = " ".join(str(error).split())[:_MAX_SAID]
        raise FetchError(f"the Workload API gives no bundle: {said}") from error
    if authorities is None and keys is None:
        raise FetchError(f"the Workload API has no bundle of `{domain}`")
    return _bundle(
        authorities.x509_authorities if authorities is not None else (),
        keys.jwt_authorities if keys is not None else {},
    )


def _bundle(authorities: "Iterable[x509.Certificate]", keys: dict[str, Any]) -> str:
    """Write a bundle; what means the same is the same text."""
    entries = [{**_jwk(key), "kid": kid, "use": "jwt-svid"} for kid, key in keys.items()]
    for certificate in authorities:
        der = certificate.public_bytes(serialization.Encoding.DER)
        text = base64.b64encode(der).decode()
        with suppress(FetchError):
            entries.append({**_jwk(certificate.public_key()), "use": "x509-svid", "x5c": [text]})
    entries.sort(key=lambda entry: json.dumps(entry, sort_keys=True))
    return json.dumps({"keys": entries}, sort_keys=True)


def _jwk(key: object) -> dict[str, Any]:
    """Write a public key."""
    made: dict[str, Any]
    if isinstance(key, ec.EllipticCurvePublicKey):
        made = ECAlgorithm.to_jwk(key, as_dict=True)
    elif isinstance(key, rsa.RSAPublicKey):
        made = RSAAlgorithm.to_jwk(key, as_dict=True)
    elif isinstance(key, ed25519.Ed25519PublicKey):
        made = OKPAlgorithm.to_jwk(key, as_dict=True)
    else:
        raise FetchError("a key is of a kind that is not known")
    made.pop("key_ops", None)
    return made
