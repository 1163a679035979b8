"""The signed invalidation webhook, over Flask and FastAPI: who is believed, when, how often, and what it does.

Thread rule: one thread.
Refuses to know: the other endpoints.
"""

from __future__ import annotations

import base64
import hmac
import json
import time
from typing import Any

import pytest

from managing import BEARER, FRAMEWORKS, SECRET, TOKEN, Ask, Got, client
from stillwarm import Cache, ConfigError
from stillwarm.web import webhook as module
from stillwarm.web.management import Management, sign_webhook
from stillwarm.web.webhook import Webhook

NOW = 1_800_000_000
OTHER = "whsec_" + base64.b64encode(b"another secret of 32 bytes......").decode()


@pytest.fixture
def cache() -> Cache:
    cache = Cache(ttl=60)
    cache.define("price", ttl=60)
    for key in ("a", "b", "c"):
        cache.set(key, 1, tags=[f"tag-{key}"])
    return cache


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [float(NOW)]
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    monkeypatch.setattr(Webhook.__init__, "__defaults__", (lambda: now[0],))
    return now


@pytest.fixture(params=FRAMEWORKS)
def ask(request: pytest.FixtureRequest, cache: Cache, clock: list[float]) -> Ask:
    return client(request.param, Management(cache, auth=TOKEN, webhook_secret=SECRET))


def deliver(ask: Ask, body: Any, secret: str = SECRET, headers: dict[str, str] | None = None, **sign: Any) -> Got:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    signed = {"Content-Type": "application/json", **sign_webhook(secret, content, **sign), **(headers or {})}
    return ask("POST", "/webhook", signed, content)


def held(cache: Cache) -> set[str]:
    return {key for key in ("a", "b", "c") if cache.contains(key)}


ONE = {"invalidate": [{"key": "a"}]}


# ------------------------------------------------------------------------------------------------------------- signing


def test_webhook_signs_as_the_specification_does() -> None:
    """The example of the Standard Webhooks specification."""
    headers = sign_webhook(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        '{"test": 2432232314}',
        id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp=1614265330,
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_webhook_ids_are_new_and_texts_are_signed_as_utf8() -> None:
    first, second = sign_webhook(SECRET, b"x"), sign_webhook(SECRET, b"x")
    assert first["webhook-id"] != second["webhook-id"]
    assert abs(int(first["webhook-timestamp"]) - time.time()) < 60
    assert sign_webhook(SECRET, "ü", "i", 1) == sign_webhook(SECRET, "ü".encode(), "i", 1)


FORMS = ("", "A" * 31, "A" * 28, "A" * 92, "!" + "A" * 40, "ü" * 40, "abc")


@pytest.mark.parametrize("secret", ["", "secret", SECRET[6:], None, 1, SECRET.encode(), *(f"whsec_{x}" for x in FORMS)])
def test_webhook_a_secret_of_another_form_is_refused_and_not_quoted(cache: Cache, secret: Any) -> None:
    for use in (lambda: sign_webhook(secret, b""), lambda: Webhook(secret)):
        with pytest.raises(ConfigError, match="webhook secret: accepted: whsec_ and") as error:
            use()
        assert not secret or len(str(secret)) < 8 or str(secret) not in str(error.value)


@pytest.mark.parametrize("id", ["", "a b", "ü", "x" * 257, "a\n"])
def test_webhook_an_id_that_no_header_can_carry_is_refused(id: str) -> None:
    with pytest.raises(ConfigError, match="id="):
        sign_webhook(SECRET, b"", id=id)


# --------------------------------------------------------------------------------------------------------- who and when


def test_webhook_a_signed_delivery_needs_no_auth(ask: Ask, cache: Cache) -> None:
    got = deliver(ask, ONE, id="msg_1")
    assert (got.status, got.json) == (200, {"status": "success", "id": "msg_1", "counts": [1]})
    assert held(cache) == {"b", "c"}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_webhook_is_not_there_without_a_secret(framework: str, cache: Cache) -> None:
    ask = client(framework, Management(cache, auth=TOKEN))
    assert deliver(ask, ONE).status == 404
    assert ask("POST", "/webhook", BEARER, ONE).status == 404
    assert held(cache) == {"a", "b", "c"}


def test_webhook_the_token_of_the_management_does_not_open_it(ask: Ask, cache: Cache) -> None:
    assert ask("POST", "/webhook", BEARER, ONE).status == 403
    got = ask("GET", "/webhook", BEARER)
    assert (got.status, got.headers["allow"]) == (405, "POST")
    assert held(cache) == {"a", "b", "c"}


def flipped(signature: str) -> str:
    raw = bytearray(base64.b64decode(signature.partition(",")[2]))
    raw[-1] ^= 1
    return "v1," + base64.b64encode(raw).decode()


def test_webhook_a_delivery_with_anything_changed_is_refused(ask: Ask, cache: Cache) -> None:
    body = json.dumps(ONE).encode()
    good = {"Content-Type": "application/json", **sign_webhook(SECRET, body, "msg_1", NOW)}
    signature = good["webhook-signature"]
    for name, change in {
        "another secret": sign_webhook(OTHER, body, "msg_1", NOW),
        "another id": {"webhook-id": "msg_2"},
        "another time": {"webhook-timestamp": str(NOW + 1)},
        "one bit": {"webhook-signature": flipped(signature)},
        "cut": {"webhook-signature": signature[:20]},
        "another version": {"webhook-signature": "v2" + signature[2:]},
        "without version": {"webhook-signature": signature[3:]},
        "empty": {"webhook-signature": ""},
        "only a version": {"webhook-signature": "v1,"},
        "not base64": {"webhook-signature": "v1,\xff\xfe!"},
        "no id": {"webhook-id": ""},
        "no time": {"webhook-timestamp": ""},
        "time as float": {"webhook-timestamp": f"{NOW}.0"},
        "time with sign": {"webhook-timestamp": f"+{NOW}"},
        "time in other digits": {"webhook-timestamp": "\xb2"},
        "long time": {"webhook-timestamp": "9" * 5000},
    }.items():
        got = ask("POST", "/webhook", {**good, **change}, body)
        assert got.status == 403, name
        assert SECRET[6:].encode() not in got.body
    assert ask("POST", "/webhook", good, body + b" ").status == 403, "another body"
    assert held(cache) == {"a", "b", "c"}
    assert ask("POST", "/webhook", good, body).status == 200, "what was refused has used up no id"


def test_webhook_one_of_several_signatures_is_enough(ask: Ask, cache: Cache) -> None:
    body = json.dumps(ONE).encode()
    good = sign_webhook(SECRET, body, "msg_1", NOW)
    old = sign_webhook(OTHER, body, "msg_1", NOW)
    good["webhook-signature"] = f"v1a,xyz {old['webhook-signature']} v1,! {good['webhook-signature']}"
    assert ask("POST", "/webhook", {"Content-Type": "application/json", **good}, body).status == 200
    assert held(cache) == {"b", "c"}


def test_webhook_signatures_are_compared_in_constant_time(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(module.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    body = json.dumps(ONE).encode()
    good = sign_webhook(SECRET, body, "msg_1", NOW)
    good["webhook-signature"] += " " + flipped(good["webhook-signature"])
    assert ask("POST", "/webhook", {"Content-Type": "application/json", **good}, body).status == 200
    assert len(compared) == 2, "also after the one that matched"


@pytest.mark.parametrize(("away", "status"), [(-301, 403), (-300, 200), (0, 200), (300, 200), (301, 403)])
def test_webhook_a_delivery_of_another_time_is_refused(ask: Ask, cache: Cache, away: int, status: int) -> None:
    assert deliver(ask, ONE, timestamp=NOW + away).status == status
    assert cache.contains("a") is (status == 403)


def test_webhook_a_replay_is_refused_as_long_as_its_time_would_be_accepted(
    ask: Ask, cache: Cache, clock: list[float]
) -> None:
    delivery = {"id": "msg_1", "timestamp": NOW + 300}
    assert deliver(ask, ONE, **delivery).status == 200
    for passed, status in ((0, 409), (299, 409), (599, 409), (600, 409), (601, 403)):
        clock[0] = NOW + passed
        cache.set("a", 1)
        assert deliver(ask, ONE, **delivery).status == status, passed
        assert cache.contains("a")


def test_webhook_the_memory_of_ids_is_bounded_and_forgets_only_what_is_over(
    ask: Ask, cache: Cache, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_IDS", 3)
    for n in range(3):
        assert deliver(ask, ONE, id=f"msg_{n}").status == 200
    got = deliver(ask, ONE, id="msg_3")
    assert (got.status, got.headers["retry-after"]) == (503, "300")
    assert deliver(ask, ONE, id="msg_0").status in (409, 503), "and none of them may come again"
    clock[0] = NOW + 300
    assert deliver(ask, ONE, id="msg_3", timestamp=NOW + 300).status == 503, "the three could still be replayed"
    clock[0] = NOW + 301
    assert deliver(ask, ONE, id="msg_3", timestamp=NOW + 300).status == 200


# --------------------------------------------------------------------------------------------------------- what it does


def test_webhook_does_everything_that_it_lists(ask: Ask, cache: Cache) -> None:
    @cache.cached("price", stale_while_revalidate=60)
    def price(n: int) -> int:
        return n

    price(1)
    got = deliver(
        ask, {"invalidate": [{"key": "a"}, {"tag": "tag-b"}, {"pattern": "[c]"}, {"type": "price", "stale": True}]}
    )
    assert got.json["counts"] == [1, None, 1, None]
    assert held(cache) == set()
    assert price(1) == 1
    assert price.cache_info().stale_hits == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "invalidate"),
        ({"invalidate": []}, "invalidate"),
        ({"invalidate": {"key": "a"}}, "invalidate"),
        ({"invalidate": [{"key": "a"}] * 1001}, "invalidate"),
        ({"invalidate": [{"key": "a"}, "b"]}, "invalidate[1]"),
        ({"invalidate": [{"key": "a"}, {}]}, "invalidate[1]"),
        ({"invalidate": [{"key": "a"}, {"key": "a", "tag": "b"}]}, "invalidate[1]"),
        ({"invalidate": [{"key": "a"}, {"all": True}]}, "invalidate[1]"),
        ({"invalidate": [{"key": "a"}, {"key": ""}]}, "invalidate[1].key"),
        ({"invalidate": [{"key": "a"}, {"key": 1}]}, "invalidate[1].key"),
        ({"invalidate": [{"key": "a"}, {"type": "prices"}]}, "invalidate[1].type"),
        ({"invalidate": [{"key": "a"}, {"pattern": "*a" * 33}]}, "invalidate[1].pattern"),
        ({"invalidate": [{"key": "a"}, {"key": "a", "stale": 1}]}, "invalidate[1].stale"),
        ({"invalidate": [{"key": "a"}, {"key": "a", "x": 1}]}, "invalidate[1].x"),
        ({"invalidate": [{"key": "a"}], "more": 1}, "more"),
    ],
)  # fmt: skip
def test_webhook_a_bad_delivery_is_refused_as_a_whole(ask: Ask, cache: Cache, body: Any, field: str) -> None:
    got = deliver(ask, body, id="msg_1")
    assert (got.status, got.json["field"]) == (400, field)
    assert held(cache) == {"a", "b", "c"}
    assert deliver(ask, ONE, id="msg_1").status == 200, "its id may come again, put right"


def test_webhook_bodies_of_another_kind_or_size_are_refused(ask: Ask, cache: Cache) -> None:
    assert deliver(ask, b"[]").status == 400
    assert deliver(ask, b"{" * 1000).status == 400
    assert deliver(ask, b"").status == 400
    assert deliver(ask, ONE, headers={"Content-Type": "text/plain"}).status == 415
    assert deliver(ask, b" " * 65_537).status == 413
    assert held(cache) == {"a", "b", "c"}


def test_webhook_a_delivery_that_failed_here_may_come_again(
    ask: Ask, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(Cache, "invalidate", lambda *_, **__: 1 / 0)
        assert deliver(ask, ONE, id="msg_1").status == 500
    assert deliver(ask, ONE, id="msg_1").status == 200
    assert held(cache) == {"b", "c"}
