"""Invalidation that another system asks for: deliveries signed as the Standard Webhooks specification says.

Thread rule: any thread; the only state is the set of ids seen, whose operations are atomic.
Refuses to know: caches, and what the body means.

A sender that repeats a delivery uses its id again and gets 409 once it has been done. The ids are this process's own:
another worker would do the delivery a second time, which invalidates what is invalid already and harms nobody.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from typing import Final

from stillwarm.errors import ConfigError
from stillwarm.web._exchange import Asked, Refused

TOLERANCE: Final = 300
MOST_IDS: Final = 10_000
_ACCEPTED: Final = "whsec_ and 24 to 64 bytes in base64"
_PREFIX: Final = "whsec_"
_ID: Final = re.compile(r"[!-~]{1,256}")


def sign_webhook(secret: str, body: bytes | str, id: str | None = None, timestamp: int | None = None) -> dict[str, str]:
    """The headers that a sender adds to a delivery of `body`.

    Args:
        secret: "whsec_" and base64, the same as the receiver's `webhook_secret`.
        body: exactly what is sent.
        id: of this delivery, the same when it is sent again; a new one by default.
        timestamp: seconds since 1970; now by default.

    Raises:
        ConfigError: the secret has another form, or the id a space or a character beyond ASCII.
    """
    key = _key_of(secret)
    id = f"msg_{secrets.token_hex(16)}" if id is None else id
    if not _ID.fullmatch(id):
        raise ConfigError(f"id={id!r}: accepted: 1 to 256 visible ASCII characters")
    stamp = str(int(time.time()) if timestamp is None else timestamp)
    content = body.encode() if isinstance(body, str) else body
    signature = base64.b64encode(_mac(key, id, stamp, content)).decode()
    return {"webhook-id": id, "webhook-timestamp": stamp, "webhook-signature": f"v1,{signature}"}


class Webhook:
    """The receiving side of one secret. `now` says the time in seconds since 1970."""

    __slots__ = ("_key", "_now", "_seen")

    def __init__(self, secret: str, now: Callable[[], float] = time.time) -> None:
        self._key = _key_of(secret)
        self._now = now
        self._seen: dict[str, float] = {}

    def check(self, asked: Asked) -> str:
        """The id of a delivery that is signed, of this time, and new; it counts as seen from here on.

        Raises:
            Refused: 403 not signed or not of this time, 409 seen already, 503 too many ids to remember.
        """
        id = asked.headers.get("webhook-id", "")
        stamp = asked.headers.get("webhook-timestamp", "")
        given = asked.headers.get("webhook-signature", "")
        if not (_ID.fullmatch(id) and re.fullmatch(r"[0-9]{1,12}", stamp) and given):
            raise Refused(403, "accepted: the headers webhook-id, webhook-timestamp and webhook-signature")
        right = _mac(self._key, id, stamp, asked.body)
        # Every signature is compared, also after one that matches; a change of the secret sends two of them.
        if not sum([hmac.compare_digest(right, signature) for signature in _signatures(given)]):
            raise Refused(403, "no webhook-signature matches: another secret, or the body was changed on its way")
        now = self._now()
        if abs(now - int(stamp)) > TOLERANCE:
            raise Refused(403, f"webhook-timestamp is more than {TOLERANCE} s from this server's clock")
        self._remember(id, int(stamp) + TOLERANCE, now)
        return id

    def forget(self, id: str) -> None:
        """The delivery was not done after all: it may come again."""
        self._seen.pop(id, None)

    def _remember(self, id: str, until: int, now: float) -> None:
        if len(self._seen) >= MOST_IDS:
            for old, end in list(self._seen.items()):
                if end < now:
                    self._seen.pop(old, None)
            if len(self._seen) >= MOST_IDS:
                # Forgetting one would let it be replayed. Only holders of the secret can fill this.
                raise Refused(503, "too many deliveries within the tolerance", ("Retry-After", str(TOLERANCE)))
        mine = float(until)  # its own object: whoever finds another one came second
        if self._seen.setdefault(id, mine) is not mine:
            raise Refused(409, "this webhook-id was delivered already")


def _key_of(secret: object) -> bytes:
    try:
        if not isinstance(secret, str) or not secret.startswith(_PREFIX):
            raise ValueError
        key = base64.b64decode(secret[len(_PREFIX) :], validate=True)
        if not 24 <= len(key) <= 64:
            raise ValueError
    except (ValueError, binascii.Error):  # without the value: it is a secret
        raise ConfigError(f"webhook secret: accepted: {_ACCEPTED}") from None
    return key


def _mac(key: bytes, id: str, stamp: str, body: bytes) -> bytes:
    return hmac.new(key, b"%s.%s.%s" % (id.encode(), stamp.encode(), body), hashlib.sha256).digest()


def _signatures(header: str) -> list[bytes]:
    found = []
    for item in header.split(" ")[:16]:
        version, _, encoded = item.partition(",")
        if version == "v1":
            try:
                found.append(base64.b64decode(encoded, validate=True))
            except (ValueError, binascii.Error):
                continue
    return found
