#!/usr/bin/env python3
"""A private PostgreSQL, with TLS, and a private Redis for .ci/clean-wheel; both end when standard input does.

Prints one line: PostgreSQL's URL, Redis's, PostgreSQL's by TLS as seen from a root that has the certificate in /,
the certificate's path, and the folders that must be gone afterwards.

Thread rule: a program of one thread.
Refuses to know: what the servers are for. It needs stillwarm to be installed, and the program openssl.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from stillwarm._redis_server import RedisServer
from stillwarm._servers import PostgresServer


def encrypt(server: PostgresServer) -> Path:
    """Makes the server speak TLS; its certificate, which is its own authority."""
    certificate, key = server.socket / "warm.pem", server.socket / "warm.key"
    names = [f"subjectAltName=DNS:localhost,IP:{server.host}", "keyUsage=critical,digitalSignature,keyCertSign"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", *(word for name in names for word in ("-addext", name)),
         "-out", certificate, "-keyout", key],
        check=True, capture_output=True,
    )  # fmt: skip
    owner = server.socket.stat()
    for path in (certificate, key):
        os.chown(path, owner.st_uid, owner.st_gid)
    key.chmod(0o600)
    certificate.chmod(0o644)
    for setting in (f"ssl_cert_file = '{certificate}'", f"ssl_key_file = '{key}'", "ssl = on"):
        server.sql(f"ALTER SYSTEM SET {setting}")
    server.restart()
    return certificate


def main() -> None:
    with PostgresServer() as postgres, RedisServer() as redis:
        certificate = encrypt(postgres)
        safe = postgres.url.replace(postgres.host, "localhost")
        safe += f"?sslmode=verify-full&sslrootcert=/{certificate.name}"
        print(postgres.url, redis.url, safe, certificate, f"{postgres.socket}:{redis.folder}", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
