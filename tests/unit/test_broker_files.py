"""What brokers read from files: secrets that nobody else may read, and where a PostgreSQL server is."""

import base64
import hashlib
import hmac
import os
import ssl
from pathlib import Path

import pytest

from authz.errors import ConfigError
from authz.files import PrivateFileError, read_secret
from authz.leases import BrokerError
from authz.leases.postgresql.scram import scram_verifier
from authz.leases.postgresql.server_address import broker_address, tls_context
from authz.server.tls_files import check_database_files
from tests.support.keyserver import WebAuthority


def secret(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    """Writes a secret."""
    file = folder / "secret"
    file.write_bytes(content)
    file.chmod(mode)
    return file


@pytest.mark.parametrize("content", [b"key-1", b"key-1\n", b"key-1\r\n"])
def test_a_secret_is_one_line_without_its_end(tmp_path: Path, content: bytes) -> None:
    """However an editor ends it."""
    assert read_secret(secret(tmp_path, content)) == "key-1"


def test_a_link_is_followed_as_in_a_mounted_secret(tmp_path: Path) -> None:
    """Kubernetes mounts secrets as links, and swaps them."""
    secret(tmp_path, b"key-1\n")
    (tmp_path / "link").symlink_to("secret")
    assert read_secret(tmp_path / "link") == "key-1"


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o602, 0o644, 0o666, 0o601])
def test_a_secret_that_others_can_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    """It says what to do."""
    with pytest.raises(PrivateFileError, match=r"others may read or write it\. chmod"):
        read_secret(secret(tmp_path, b"key-1\n", mode))


def test_a_secret_of_ours_is_not_even_for_our_group(tmp_path: Path) -> None:
    """Only root's may be, as PostgreSQL holds it with keys."""
    file = secret(tmp_path, b"key-1\n", 0o640)
    if os.geteuid() == 0:
        assert read_secret(file) == "key-1"
        return
    with pytest.raises(PrivateFileError, match="chmod 0600"):
        read_secret(file)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_secret_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """Whoever owns it can change it."""
    file = secret(tmp_path, b"key-1\n")
    os.chown(file, 12_345, 12_345)
    with pytest.raises(PrivateFileError, match="belongs to user 12345"):
        read_secret(file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"a\nb\n", "one line"),
        (b"a\r\nx-admin: 1\n", "one line"),
        (b"a\x00b", "one line"),
        ("schlüssel".encode(), "one line"),
        (b"a" * 8193, "longer than 8192 bytes"),
        (b"a" * 8193 + b"\r\n", "longer than 8192 bytes"),
        (b"a" * 20_000, "longer than 8192 bytes"),
    ],
)
def test_what_is_no_line_of_printable_ascii_is_refused(
    tmp_path: Path, content: bytes, said: str
) -> None:
    """A line end in a header's value would begin another header."""
    with pytest.raises(PrivateFileError, match=said) as refused:
        read_secret(secret(tmp_path, content))
    assert "x-admin" not in str(refused.value)


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    """A pipe that nobody writes to would hold up whoever reads it."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(PrivateFileError, match="not a regular file"):
        read_secret(tmp_path / "pipe")
    with pytest.raises(PrivateFileError):
        read_secret(tmp_path)
    with pytest.raises(PrivateFileError, match="cannot be read"):
        read_secret(tmp_path / "none")


def test_an_address_is_read_whole() -> None:
    """Escapes are undone, and the password is in no representation."""
    address = broker_address("postgresql://bro%40ker:p%2Fw@127.0.0.1:5433/ware%20house")
    assert (address.host, address.port, address.user) == ("127.0.0.1", 5433, "bro@ker")
    assert (address.password, address.database, address.tls) == ("p/w", "ware house", None)
    assert "p/w" not in repr(address)


def test_an_address_in_the_form_of_libpq_is_read() -> None:
    """The same rules as for the store's own database."""
    address = broker_address("host=localhost port=5433 user=bro@ker password='p/w' dbname=b")
    assert (address.host, address.port, address.user) == ("localhost", 5433, "bro@ker")
    assert (address.password, address.database, address.tls) == ("p/w", "b", None)


def test_an_address_may_be_a_socket() -> None:
    """Its folder is no part of a URL's host."""
    address = broker_address("postgresql://broker@/warehouse?host=/run/postgresql")
    assert (address.host, address.port, address.tls) == ("/run/postgresql", 5432, None)


def test_the_database_is_called_like_the_user_where_none_is_named() -> None:
    """As libpq has it."""
    assert broker_address("postgres://broker@localhost").database == "broker"


@pytest.mark.parametrize(
    ("dsn", "said"),
    [
        ("mysql://a@localhost/b", "is neither postgresql://"),
        ("postgresql://localhost/b", "names no user"),
        ("postgresql://a@/b", "names no host"),
        ("postgresql://a@db.example/b", "needs sslrootcert"),
        ("postgresql://a@db.example/b?sslmode=require", "needs sslrootcert"),
        ("postgresql://a@localhost/b?sslmode=verify-full", "needs sslrootcert"),
        ("postgresql://a@db.example/b?sslmode=prefer", "may go on without TLS"),
        ("postgresql://a@db.example/b?sslmode=allow", "may go on without TLS"),
        ("postgresql://a@localhost/b?sslcert=x", "go together"),
        ("postgresql://a@localhost/b?sslmode=disable&sslkey=x", "go together"),
        ("postgresql://a@localhost/b?options=-c%20x", "`options`, which is not supported here"),
        ("postgresql://a@localhost:port/b", "is not valid"),
        ("postgresql://a@[::1/b", "is not valid"),
        ("postgresql://a@localhost,127.0.0.1/b", "names several hosts"),
    ],
)
def test_an_address_that_says_too_little_is_refused(dsn: str, said: str) -> None:
    """Nothing is looked up elsewhere, and no password goes over a line that anyone can read."""
    with pytest.raises(BrokerError, match=said):
        broker_address(dsn)


def test_a_far_host_may_do_without_tls_only_when_told() -> None:
    """`sslmode=disable` is the one way."""
    assert broker_address("postgresql://a@db.example/b?sslmode=disable").tls is None


def test_a_file_of_authorities_that_is_not_there_is_told() -> None:
    """Not when it is parsed: when it is used."""
    dsn = "postgresql://a@db.example/b?sslrootcert=/nowhere/ca.pem"
    with pytest.raises(BrokerError, match="cannot be used"):
        tls_context(broker_address(dsn))


@pytest.fixture
def tls_files(tmp_path: Path) -> dict[str, Path]:
    """The TLS files of a connection, by the name of their setting."""
    authority = WebAuthority()
    roots = tmp_path / "roots.pem"
    roots.write_bytes("# Wurzel für die Datenbank\n".encode("latin-1") + authority.pem)
    leaf = authority.leaf(tmp_path)
    key = tmp_path / "key.pem"
    key.write_bytes(leaf.read_bytes())
    key.chmod(0o600)
    return {"sslrootcert": roots, "sslcert": leaf, "sslkey": key}


def context_of(files: dict[str, Path]) -> ssl.SSLContext | None:
    """Make the TLS context of a connection with these files."""
    query = "&".join(f"{name}={file}" for name, file in files.items())
    return tls_context(broker_address(f"postgresql://a@db.example/b?{query}"))


def test_the_tls_files_of_a_connection_are_loaded(tls_files: dict[str, Path]) -> None:
    """Only the authorities of `sslrootcert` are trusted, whatever stands around their certificates."""
    context = context_of(tls_files)
    assert context is not None
    assert len(context.get_ca_certs()) == 1
    assert context.check_hostname


@pytest.mark.parametrize(
    ("name", "mode", "reason"),
    [
        ("sslrootcert", 0o666, "everybody can write to it"),
        ("sslcert", 0o666, "everybody can write to it"),
        ("sslkey", 0o666, "others may read or write it"),
        ("sslkey", 0o644, "others may read or write it"),
    ],
)
def test_tls_files_that_others_can_change_are_refused(
    tls_files: dict[str, Path], name: str, mode: int, reason: str
) -> None:
    """Their writer would choose the server that the broker logs in to."""
    tls_files[name].chmod(mode)
    with pytest.raises(BrokerError, match=reason):
        context_of(tls_files)


def test_tls_files_of_the_store_are_checked_as_those_of_a_broker(
    tls_files: dict[str, Path],
) -> None:
    """The node does not start with files that other users could replace."""
    pairs = " ".join(f"{name}={file}" for name, file in tls_files.items())
    dsn = f"host=db.example user=a {pairs}"
    check_database_files(None)
    check_database_files("host=/run/postgresql user=a")
    check_database_files(dsn)
    for file in tls_files.values():
        mode = file.stat().st_mode
        file.chmod(0o666)
        with pytest.raises(ConfigError, match="a TLS file of the database cannot be used"):
            check_database_files(dsn)
        file.chmod(mode)
    with pytest.raises(ConfigError, match="connection string of the database names no host") as no:
        check_database_files("user=a password=hunter2")
    assert "hunter2" not in str(no.value)


def test_a_key_of_roots_group_may_be_used(tls_files: dict[str, Path]) -> None:
    """Mode 0640, as Kubernetes mounts secrets and libpq accepts them."""
    tls_files["sslkey"].chmod(0o640)
    if os.geteuid() == 0:
        assert context_of(tls_files) is not None
        return
    with pytest.raises(BrokerError, match="chmod 0600"):
        context_of(tls_files)


def test_an_empty_file_of_authorities_does_not_stand_for_those_of_the_system(
    tls_files: dict[str, Path],
) -> None:
    """`ssl` takes an empty `cadata` for none, and then trusts every public authority."""
    tls_files["sslrootcert"].write_bytes(b"")
    with pytest.raises(BrokerError, match="holds no certificate"):
        context_of(tls_files)


def test_a_verifier_is_as_rfc_5802_computes_it() -> None:
    """Checked as a server does: by the proof of a client that knows the password."""
    verifier = scram_verifier("pencil", b"0123456789abcdef")
    head, keys = verifier.removeprefix("SCRAM-SHA-256$").split("$")
    iterations, salt = head.split(":")
    stored, server = (base64.b64decode(one) for one in keys.split(":"))
    salted = hashlib.pbkdf2_hmac("sha256", b"pencil", base64.b64decode(salt), int(iterations))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    assert hashlib.sha256(client_key).digest() == stored
    assert hmac.digest(salted, b"Server Key", "sha256") == server
    assert "pencil" not in verifier
