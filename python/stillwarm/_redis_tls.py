"""What a URL of Redis says of TLS, and the same for the standard library's `ssl`, which tools and tests speak it with.

Thread rule: any thread; what is here does not change.
Refuses to know: connections. The tier's own are OpenSSL's in C++ (cpp/core/remote/redis_tls).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlencode

from stillwarm._durations import shown

if TYPE_CHECKING:
    import ssl

__all__ = ["PARAMETERS", "RedisTls"]

PARAMETERS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs")  # of a URL


class RedisTls(NamedTuple):
    """TLS, and whom to believe. Files are PEM; a parameter of a URL is named as redis-py names it."""

    verified: bool = True  # ssl_cert_reqs=none: whoever answers is believed
    authorities: str = ""  # ssl_ca_certs; empty: the system's
    certificate: str = ""  # ssl_certfile: ours, for a server that asks for one
    key: str = ""  # ssl_keyfile; empty: it is in the same file

    @classmethod
    def of(cls, pairs: list[tuple[str, str]]) -> RedisTls:
        """What these parameters of a URL say.

        Raises:
            ValueError: one is given twice, is empty, or is not accepted.
        """
        given = dict(pairs)
        if len(given) < len(pairs):
            raise ValueError("a parameter of TLS is given twice")
        for name, value in given.items():
            if not value or "\0" in value:
                raise ValueError(f"the parameter {name} is empty or has a NUL")
        asked = given.get("ssl_cert_reqs", "required")
        if asked not in ("required", "none"):
            raise ValueError(f"ssl_cert_reqs={shown(asked)}: accepted: required (the default), or none")
        if "ssl_keyfile" in given and "ssl_certfile" not in given:
            raise ValueError("ssl_keyfile without ssl_certfile")
        if asked == "none" and "ssl_ca_certs" in given:
            raise ValueError("ssl_ca_certs with ssl_cert_reqs=none, which asks nobody's authority")
        authorities, certificate, key = (given.get(name, "") for name in PARAMETERS[:3])
        return cls(asked == "required", authorities, certificate, key)

    @property
    def text(self) -> str:
        """As the parameters of a URL say it, but for a certificate of our own."""
        return urlencode({"ssl_ca_certs": self.authorities} if self.verified else {"ssl_cert_reqs": "none"})

    def context(self) -> ssl.SSLContext:
        """The same for `ssl`.

        Raises:
            OSError: a file cannot be read.
        """
        import ssl

        context = ssl.create_default_context(cafile=self.authorities or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if not self.verified:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate:
            context.load_cert_chain(self.certificate, self.key or None, password=lambda: "")
        return context
