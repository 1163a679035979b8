"""How a value becomes the payload of a remote tier, and comes back.

    @cache.cached(ttl="5m")                        # msgpack; the return annotation says what comes back
    def score(asin: str) -> Score: ...

    @cache.cached(ttl="5m", codec="json")          # readable for other programs
    @cache.cached(ttl="5m", decode_as=list[Score])
    @cache.cached(ttl="5m", codec=codecs.signed_pickle(os.environ["CACHE_KEY"]))

Thread rule: a codec is used by any number of threads at once. It runs the user's code: constructors of the user's
classes, and what was given to register().
Refuses to know: envelopes, tiers and functions. A payload never chooses its codec: see Codec.matches.

Without a declared type everything comes back as it went in, types included: plain data, tuple, set, frozenset, Decimal,
UUID, dates and times with their zone, dicts with any keys; other classes are refused. With a declared type, what comes
back is of that type. A time zone by name then comes back as its offset from UTC.

An own codec is any object with `id` (128 to 255), `name`, `encode(value) -> bytes` and `decode(bytes) -> value`.
"""

from __future__ import annotations

import functools
import hmac
import pickle
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol, TypeVar

from stillwarm import _tagged, _typed
from stillwarm._unstorable import find
from stillwarm.errors import CodecError, ConfigError

__all__ = ["Codec", "OwnCodec", "codec_for", "register", "signed_pickle"]

_T = TypeVar("_T")
_FIRST_OWN_ID: Final = 128


class OwnCodec(Protocol):
    """What `codec=` accepts beside names: an object of the user's."""

    @property
    def id(self) -> int:
        """128 to 255; it stands in each payload, and only a codec with the same id reads it."""

    @property
    def name(self) -> str:
        """For texts and figures."""

    def encode(self, value: Any, /) -> bytes:
        """The payload; what is raised here keeps the value out of the tier."""

    def decode(self, payload: bytes, /) -> Any:
        """The value; what is raised here makes the look-up a miss."""


class Codec:
    """Value to payload and back. What goes wrong in `encode` and `decode` is a CodecError.

    Attributes:
        id: which codec made a payload; 1 to 127 are stillwarm's own.
        name: for texts and figures.
    """

    id: int
    name: str
    plain: Callable[[bytes], Any] | None = None  # `decode` but for its errors, if that is all it does

    def encode(self, value: Any) -> bytes:
        """The payload of a value.

        Raises:
            CodecError: names the part of the value that cannot be encoded.
        """
        raise NotImplementedError

    def decode(self, payload: bytes) -> Any:
        """The value of a payload that this codec made.

        Raises:
            CodecError: it is damaged, or its value is not of the declared type.
        """
        raise NotImplementedError

    def matches(self, codec_id: int) -> bool:
        """Whether this codec made a payload: only then it may decode it. Another id is a miss."""
        return codec_id == self.id

    def __repr__(self) -> str:
        return f"<Codec {self.name}>"


def codec_for(codec: str | Codec | OwnCodec = "msgpack", decode_as: Any = None) -> Codec:
    """The codec of one function. `decode_as`: its resolved return annotation; None, Any or empty: no declared type.

    Raises:
        ConfigError: there is no such codec, or values of the type cannot be brought back.
    """
    if isinstance(codec, str) and codec in ("msgpack", "json"):
        _require_msgspec()
        plan = _typed.plan(decode_as)
        if plan.way == "pydantic":
            return _Pydantic(decode_as)
        if plan.way == "untyped":
            return _msgpack() if codec == "msgpack" else _json()
        return _Typed(codec == "json", decode_as, plan)
    if isinstance(codec, (_Untyped, _Typed, _Pydantic, _SignedPickle, _Own)):
        return codec
    if not isinstance(codec, str):
        return _Own(codec)
    raise ConfigError(f"codec={codec!r}; accepted: 'msgpack', 'json', codecs.signed_pickle(key) or a codec of your own")


def register(kind: type[_T], encode: Callable[[_T], Any], decode: Callable[[Any], _T], name: str) -> None:
    """Values of exactly this class travel without a declared type, as what `encode` makes of them.

    `encode` returns anything that travels by itself; `decode` gets that back. `name` stands in stored payloads, so keep
    it when the class is renamed. Registering the same class again under its name replaces the two functions.

    Raises:
        ConfigError: the class has another name already, the name another class, or the class needs no registering.
    """
    if not isinstance(kind, type) or kind in _typed._EXACT:
        raise ConfigError(f"register({kind!r}): accepted: a class that is not stored by itself")
    if not isinstance(name, str) or not name:
        raise ConfigError(f"register({kind.__qualname__}, name={name!r}): accepted: a text that stays the same")
    known = _tagged.by_type.get(kind) or _tagged.by_name.get(name)
    same = known is not None and (known.kind is kind or _same_place(known.kind, kind)) and known.name == name
    if known is not None and not same:
        raise ConfigError(
            f"register({kind.__qualname__}, name={name!r}): {known.kind.__qualname__} is registered as {known.name!r}"
        )
    if known is not None:
        del _tagged.by_type[known.kind]
    entry = _tagged.Registered(kind, encode, decode, name)
    _tagged.by_type[kind] = entry
    _tagged.by_name[name] = entry


def _same_place(old: type, new: type) -> bool:
    """A module that is loaded again makes its classes anew."""
    return (old.__module__, old.__qualname__) == (new.__module__, new.__qualname__)


def signed_pickle(key: bytes | str | Iterable[bytes | str]) -> Codec:
    """Pickle, signed with HMAC-SHA256. With several keys the first one signs, and any of them is accepted.

    The signature says that a holder of the key made the payload: whoever has the key can run code in every process that
    reads the tier. It does not say for which cache key it was made; the envelope does.

    Raises:
        ConfigError: there is no key, or one is shorter than 16 bytes.
    """
    return _SignedPickle([key] if isinstance(key, (bytes, str)) else list(key))


def _require_msgspec() -> None:
    try:
        import msgspec  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "a remote tier needs msgspec: pip install 'stillwarm[postgres]' or 'stillwarm[redis]'"
        ) from error


def _broken(codec: Codec, error: Exception) -> CodecError:
    return CodecError(f"a payload of {codec.name} cannot be decoded: {type(error).__name__}: {error}")


class _Untyped(Codec):
    """Ids 1 (msgpack) and 3 (JSON)."""

    def __init__(self, codec_id: int, name: str, write: Callable[[Any], bytes], read: Callable[[bytes], Any]) -> None:
        self.id = codec_id
        self.name = name
        self._write = write
        self._read = self.plain = read

    def encode(self, value: Any) -> bytes:
        try:
            return self._write(value)
        except CodecError:
            raise
        except Exception as error:
            raise CodecError(f"value: {error}") from error

    def decode(self, payload: bytes) -> Any:
        try:
            return self._read(payload)
        except Exception as error:
            raise _broken(self, error) from error


@functools.cache
def _msgpack() -> _Untyped:
    import msgspec

    encode = msgspec.msgpack.Encoder().encode

    def hook(code: int, data: memoryview) -> Any:
        if not 0 < code <= len(_tagged.KINDS):
            raise CodecError(f"unknown extension type {code}")
        return _tagged.unpack(_tagged.KINDS[code - 1], decoder.decode(data))

    decoder = msgspec.msgpack.Decoder(ext_hook=hook)
    codes = {kind: code for code, kind in enumerate(_tagged.KINDS, 1)}
    form = _tagged.Form(lambda kind, body: msgspec.msgpack.Ext(codes[kind], encode(body)))

    return _Untyped(1, "msgpack", lambda value: encode(_tagged.pack(value, form)), decoder.decode)


_TAG: Final = "$stillwarm"


@functools.cache
def _json() -> _Untyped:
    import msgspec

    encode = msgspec.json.Encoder().encode
    decode = msgspec.json.Decoder().decode
    mark = encode(_TAG)

    def read(payload: bytes) -> Any:
        data = decode(payload)
        return _untag(data) if mark in payload else data

    form = _tagged.Form(lambda kind, body: {_TAG: [kind, body]}, is_json=True, escaped=_TAG)
    return _Untyped(3, "json", lambda value: encode(_tagged.pack(value, form)), read)


def _untag(data: Any) -> Any:
    if isinstance(data, list):
        return [_untag(item) for item in data]
    if not isinstance(data, dict):
        return data
    if _TAG in data:
        kind, body = data[_TAG]
        return _tagged.unpack(kind, _untag(body))
    return {key: _untag(item) for key, item in data.items()}


class _Typed(Codec):
    """Ids 2 (msgpack) and 4 (JSON): not those of untyped payloads, so that a new annotation does not read old data."""

    def __init__(self, is_json: bool, annotation: Any, plan: _typed.Plan) -> None:
        import msgspec

        self.id, self.name = (4, "json") if is_json else (2, "msgpack")
        module: Any = msgspec.json if is_json else msgspec.msgpack
        try:
            self._read = self.plain = module.Decoder(annotation).decode
        except Exception as error:
            raise _typed.refusal(annotation, str(error)) from error
        self._write: Callable[[Any], bytes] = module.Encoder().encode
        self._verify = plan.has_any
        self._has_nulls = is_json and plan.has_floats  # JSON writes NaN and the infinities as null
        if not is_json and (plan.has_any or plan.has_moments):
            # msgpack's own timestamp is UTC and forgets the offset; as ISO text it is kept.
            write = self._write
            self._write = lambda value: write(msgspec.to_builtins(value, builtin_types=(bytes, bytearray)))

    def encode(self, value: Any) -> bytes:
        try:
            payload = self._write(value)
        except Exception as error:
            raise find(value, self._write, error) from error
        if self._verify and not _is_same(self.decode(payload), value):
            raise CodecError(
                "value: the declared type leaves parts of it open (Any, or a container without its items' type), and "
                "there it would come back changed; declare those parts, or keep plain data in them"
            )
        if self._has_nulls and b"null" in payload and not _is_same(self.decode(payload), value):
            raise CodecError(
                "value: it has a float that is NaN or infinite, which JSON cannot write; use codec='msgpack'"
            )
        return payload

    def decode(self, payload: bytes) -> Any:
        try:
            return self._read(payload)
        except Exception as error:
            raise _broken(self, error) from error


def _is_same(back: Any, value: Any) -> bool:
    try:
        return bool(back == value)
    except Exception:
        return False


class _Pydantic(Codec):
    """Id 5: pydantic's own JSON, whichever codec was named; it is what pydantic promises to read back."""

    id = 5
    name = "pydantic"

    def __init__(self, annotation: Any) -> None:
        import pydantic
        import pydantic_core

        try:
            adapter: Any = pydantic.TypeAdapter(annotation)
            by_name = tuple(int(part) for part in pydantic.VERSION.split(".")[:2]) >= (2, 11)
        except Exception as error:
            raise _typed.refusal(annotation, str(error)) from error
        # Under the names of the fields, where that can be read: an alias for output need not be accepted as input.
        names = {"by_alias": False, "by_name": True} if by_name else {}
        to_json = pydantic_core.to_json

        def write(value: Any) -> bytes:
            data = adapter.dump_python(value, mode="json", by_alias=not by_name, round_trip=True, warnings=False)
            return to_json(data, inf_nan_mode="constants")

        self._write = write
        self._plain = pydantic_core.to_json
        self._read = self.plain = functools.partial(adapter.validate_json, **names)

    def encode(self, value: Any) -> bytes:
        try:
            return self._write(value)
        except Exception as error:
            raise find(value, self._plain, error) from error

    def decode(self, payload: bytes) -> Any:
        try:
            return self._read(payload)
        except Exception as error:
            raise _broken(self, error) from error


class _SignedPickle(Codec):
    """Id 6: the signature (32 bytes), then the pickle."""

    id = 6
    name = "signed pickle"

    def __init__(self, keys: list[bytes | str]) -> None:
        self._keys = [key.encode() if isinstance(key, str) else bytes(key) for key in keys]
        if not self._keys:
            raise ConfigError("signed_pickle(key): no key; accepted: one key or several, of at least 16 bytes each")
        if any(len(key) < 16 for key in self._keys):
            raise ConfigError("signed_pickle(key): a key is too short; accepted: 16 bytes or more, best 32 random ones")

    def encode(self, value: Any) -> bytes:
        try:
            body = pickle.dumps(value, protocol=5)
        except Exception as error:
            raise CodecError(f"value: {_tagged.a_thing(type(value))} cannot be pickled: {error}") from error
        return self._signature(self._keys[0], body) + body

    def decode(self, payload: bytes) -> Any:
        signature, body = payload[:32], payload[32:]
        if not any(hmac.compare_digest(signature, self._signature(key, body)) for key in self._keys):
            raise CodecError("a signed pickle has a wrong signature")
        try:
            return pickle.loads(body)
        except Exception as error:
            raise _broken(self, error) from error

    @staticmethod
    def _signature(key: bytes, body: bytes) -> bytes:
        return hmac.digest(key, b"stillwarm pickle 1\0" + body, "sha256")


class _Own(Codec):
    """Around the user's own codec: its errors become ours."""

    def __init__(self, own: OwnCodec) -> None:
        codec_id, name = getattr(own, "id", None), getattr(own, "name", None)
        if type(codec_id) is not int or not _FIRST_OWN_ID <= codec_id <= 255:
            raise ConfigError(f"codec={own!r} has the id {codec_id!r}; accepted: {_FIRST_OWN_ID} to 255")
        if not isinstance(name, str) or not callable(getattr(own, "encode", None)):
            raise ConfigError(f"codec={own!r}; accepted: an object with id, name, encode(value) and decode(payload)")
        if not callable(getattr(own, "decode", None)):
            raise ConfigError(f"codec={own!r} has no decode(payload)")
        self.id = codec_id
        self.name = name
        self._own = own

    def encode(self, value: Any) -> bytes:
        try:
            payload = self._own.encode(value)
        except CodecError:
            raise
        except Exception as error:
            raise CodecError(f"value: codec {self.name!r} raised {error!r}") from error
        if type(payload) is not bytes:
            raise CodecError(f"value: codec {self.name!r} made {_tagged.a_thing(type(payload))} and not bytes")
        return payload

    def decode(self, payload: bytes) -> Any:
        try:
            return self._own.decode(payload)
        except Exception as error:
            raise _broken(self, error) from error
