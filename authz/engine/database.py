"""The address of a PostgreSQL server, by the rules of the store: the store's own server, or one of a broker or of an audit sink."""

import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from authz import _native
from authz.files import check_trusted, read_authorities, read_private

__all__ = ["DatabaseAddress", "DatabaseTls", "ServerAddress"]

_MAX_KEY_BYTES: Final = 65_536
_PORT: Final = 5432
_MAX_MESSAGE: Final = 300


@dataclass(frozen=True, slots=True)
class DatabaseTls:
    """Files of a TLS connection."""

    roots: str
    """Authorities that vouch for the server, PEM."""
    certificate: str | None = None
    """Own certificate, PEM. It comes with `key`, or not at all."""
    key: str | None = None
    """Key of the certificate, PEM."""

    def check(self) -> None:
        """Check that no other user can change the files, or read the key.

        Raises:
            OSError: A file cannot be read, or everybody could replace or write it.
            ValueError: `roots` holds no certificate.
            PrivateFileError: The key can be read by others, or cannot be read.
        """
        read_authorities(self.roots)
        self._check_own()

    def context(self) -> ssl.SSLContext:
        """Return the TLS context, which verifies the server's name; raises as `check` does, and ssl.SSLError."""
        context = ssl.create_default_context(cadata=read_authorities(self.roots))
        self._check_own()
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context

    def _check_own(self) -> None:
        if self.certificate is not None and self.key is not None:
            check_trusted(self.certificate)
            # The rule of libpq: the group of a file of root may read it.
            read_private(self.key, "TLS key", _MAX_KEY_BYTES, root_group=True)


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """The parts of a connection string."""

    hosts: tuple[str, ...]
    """Host names, addresses or folders of sockets."""
    ports: tuple[int, ...]
    """Ports: none, one for all hosts, or one for each."""
    user: str | None
    """Role of the log-in."""
    password: str | None = field(repr=False)
    """Password of the log-in."""
    database: str | None
    """The database. `None`: the one named as the user."""
    tls: DatabaseTls | None
    """Files of the TLS connection. `None`: no TLS."""
    others: tuple[str, ...]
    """Names of other settings, sorted."""

    @staticmethod
    def parse(dsn: str) -> "DatabaseAddress":
        """Read a connection string. Settings that are missing are not read from the environment.

        A host that is neither a socket nor this machine is reached over TLS, and its name is verified, unless the string has
        `sslmode=disable`.

        Args:
            dsn: `postgresql://user:password@host:port/database?sslmode=…&sslrootcert=…`, or `key=value …`.

        Raises:
            ValueError: The string is not valid. The text goes on after "the connection string", and holds no password.
        """
        parts = json.loads(_native.parse_dsn(dsn))
        tls = parts.pop("tls")
        lists = {name: tuple(parts[name]) for name in ("hosts", "ports", "others")}
        return DatabaseAddress(**{**parts, **lists, "tls": tls and DatabaseTls(**tls)})


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Address of one server, and the log-in of a role."""

    host: str
    """Host name, address, or folder of a socket."""
    port: int
    """Its port."""
    user: str
    """Role of the log-in."""
    password: str = field(repr=False)
    """Password; empty: none."""
    database: str
    """The database."""
    tls: DatabaseTls | None
    """TLS files. `None`: no TLS."""

    @staticmethod
    def parse(dsn: str) -> "ServerAddress":
        """Read a connection string by the rules of the store. It must name one host and a user.

        Raises:
            ValueError: The string is not valid. The text goes on after "the connection string", and holds no password.
        """
        address = DatabaseAddress.parse(dsn)
        defect = next(_defects(address), None)
        if defect is not None:
            raise ValueError(defect)
        user = address.user or ""
        return ServerAddress(
            host=address.hosts[0],
            port=address.ports[0] if address.ports else _PORT,
            user=user,
            password=address.password or "",
            database=address.database or user,
            tls=address.tls,
        )

    def context(self) -> ssl.SSLContext | None:
        """Return the TLS context, which verifies the server's name; `None`: no TLS. Raises as `DatabaseTls.context` does."""
        return None if self.tls is None else self.tls.context()

    def arguments(self, context: ssl.SSLContext | None) -> dict[str, Any]:
        """Return the arguments of `asyncpg.connect` for the server, the log-in and TLS.

        asyncpg looks up arguments that are missing in the environment, so none of these is.

        Args:
            context: TLS context of the connection. `None`: no TLS.
        """
        return {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "database": self.database,
            "ssl": context or False,
            "direct_tls": False,
            "target_session_attrs": "read-write",
        }

    def error_text(self, error: BaseException) -> str:
        """Return an error of the server or of the connection on one line, without the password."""
        text = " ".join(str(error).split())[:_MAX_MESSAGE] or type(error).__name__
        return text.replace(self.password, "(redacted)") if self.password else text


def _defects(address: DatabaseAddress) -> Iterator[str]:
    if not address.user:
        yield "names no user"
    for other in address.others:
        yield f"has the setting `{other[:64]}`, which is not supported here"
    if len(address.hosts) != 1:
        yield "names several hosts; give one"
