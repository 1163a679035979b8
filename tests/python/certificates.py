"""Certificates for tests, made when they are asked for: by an authority of our own, or by themselves.

Thread rule: one thread.
Refuses to know: servers, and who believes what.
"""

from __future__ import annotations

import datetime
import functools
import ipaddress
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from stillwarm import Cache, ConfigError, _core
from stillwarm._redis_tls import RedisTls
from stillwarm._server_life import make_folder, servant

HOST: Final = "127.0.0.1"
PASSPHRASE: Final = b"a-passphrase"
_DAY: Final = datetime.timedelta(days=1)


class Authority:
    """Issues certificates into files that a server's user can read; they are gone at the end of the `with`."""

    def __init__(self) -> None:
        self._authority = trustme.CA()
        self.folder = make_folder("warm-ca")
        self._numbers = itertools.count(1)
        self.file = self._write("authority", self._authority.cert_pem.bytes())

    def issue(self, *names: str, until: datetime.timedelta = _DAY) -> RedisTls:
        """For these hosts, valid from ten days ago."""
        now = datetime.datetime.now(datetime.timezone.utc)
        made = self._authority.issue_cert(*names or (HOST,), not_before=now - 10 * _DAY, not_after=now + until)
        text = made.private_key_and_cert_chain_pem.bytes()
        return RedisTls(True, self.file, self._write("certificate", text))

    def self_signed(self) -> RedisTls:
        """For the host, and nobody vouches for it."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
        now = datetime.datetime.now(datetime.timezone.utc)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + _DAY)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
            .sign(key, hashes.SHA256())
        )
        text = self._pem(key, serialization.NoEncryption()) + made.public_bytes(serialization.Encoding.PEM)
        return RedisTls(True, self.file, self._write("certificate", text))

    def encrypted(self, given: RedisTls) -> str:
        """The file of its key, with a passphrase."""
        key = serialization.load_pem_private_key(Path(given.certificate).read_bytes(), None)
        return self._write("key", self._pem(key, serialization.BestAvailableEncryption(PASSPHRASE)))

    def text(self, name: str, text: str) -> str:
        """A file that is none of these."""
        return self._write(name, text.encode())

    @staticmethod
    def _pem(key: Any, encryption: serialization.KeySerializationEncryption) -> bytes:
        text: bytes = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, encryption
        )
        return text

    def _write(self, name: str, text: bytes) -> str:
        path = self.folder / f"{name}-{next(self._numbers)}.pem"
        path.write_bytes(text)
        path.chmod(0o600)
        user = servant()
        if user is not None:
            os.chown(path, user.pw_uid, user.pw_gid)
        return str(path)

    def __enter__(self) -> Authority:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.folder)


@pytest.fixture(scope="session")
def authority() -> Iterator[Authority]:
    """The one whom clients are told of."""
    with Authority() as one:
        yield one


def refuses_tls() -> None:
    """A build without TLS: every URL that asks for it is refused, and nobody connects in its place."""
    assert not _core.REDIS_TLS
    for url in (
        "rediss://:a-secret@127.0.0.1:6379/0",
        "valkeys://127.0.0.1",
        "rediss://127.0.0.1?ssl_cert_reqs=none",
        "rediss+sentinel://:a-secret@127.0.0.1/main",
        "rediss+cluster://:a-secret@127.0.0.1",
    ):
        with pytest.raises(ConfigError, match=r"no TLS for Redis.*nothing is sent unencrypted") as caught:
            Cache(url)
        assert "a-secret" not in str(caught.value)
    assert "no TLS" in _core.check_redis_tls(RedisTls())


def with_tls(test: Callable[..., Any]) -> Callable[..., Any]:
    """The test where the build has TLS; where it has not, that it refuses."""
    if _core.REDIS_TLS:
        return test

    def refused(**_: Any) -> None:
        refuses_tls()

    functools.update_wrapper(refused, test)
    return refused
