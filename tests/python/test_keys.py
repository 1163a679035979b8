"""Keys: which calls share an entry, what a readable key looks like, and that two keys never read the same.

Thread rule: one thread.
Refuses to know: how keys are hashed.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import uuid
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillwarm import Cache, ConfigError, KeyTypeError, _keys


class Colour(enum.Enum):
    RED = "red"
    BLUE = 1


class Flags(enum.Flag):
    A = 1
    B = 2


@dataclasses.dataclass(frozen=True)
class Point:
    x: object
    y: object = 0


@dataclasses.dataclass
class Mutable:
    x: object


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(2**300), max_value=2**300),
    st.floats(allow_nan=False),
    st.text(max_size=6),
    st.text(alphabet="':,=%(){}[]~ab", max_size=6),
    st.binary(max_size=5),
    st.sampled_from([*Colour, Flags.A, Flags.A | Flags.B]),
    st.dates(),
    st.datetimes(
        timezones=st.sampled_from([None, datetime.timezone.utc, datetime.timezone(datetime.timedelta(hours=5))])
    ),
    st.times(),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.uuids(),
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    hashable = st.one_of(st.integers(0, 3), st.text(max_size=2), st.booleans())
    return st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner),
        st.tuples(inner, inner),
        st.dictionaries(hashable, inner, max_size=3),
        st.sets(hashable, max_size=3),
        st.frozensets(hashable, max_size=3),
        st.builds(Point, inner, inner),
        st.builds(Mutable, inner),
    )


items = st.recursive(scalars, containers, max_leaves=6)


def identity(item: Any) -> Any:
    """What makes two items the same key: type and content, deeply."""
    kind = type(item)
    if kind in (list, tuple):
        return kind, tuple(identity(i) for i in item)
    if kind in (set, frozenset):
        return kind, frozenset(identity(i) for i in item)
    if kind is dict:
        return kind, frozenset((identity(k), identity(v)) for k, v in item.items())
    if dataclasses.is_dataclass(kind):
        return kind, tuple(identity(getattr(item, f.name)) for f in dataclasses.fields(kind))
    if kind is float:
        return kind, item.hex()
    if kind is Decimal:
        return kind, item.as_tuple()
    if kind in (datetime.datetime, datetime.time):
        return kind, item.isoformat(), item.fold
    return kind, item


@settings(max_examples=500, deadline=None)
@given(st.lists(items, max_size=3), st.lists(items, max_size=3))
def test_keys_readable_text_is_injective(a: list[Any], b: list[Any]) -> None:
    same = identity(a) == identity(b)
    assert (_keys.readable("f", tuple(a), strict=True) == _keys.readable("f", tuple(b), strict=True)) == same


@settings(max_examples=300, deadline=None)
@given(st.lists(items, min_size=1, max_size=3))
def test_keys_readable_text_is_canonical_and_clean(a: list[Any]) -> None:
    text = _keys.readable("f", tuple(a), strict=True)
    assert text == _keys.readable("f", tuple(a), strict=True)
    assert len(text.encode("utf-8", "surrogatepass")) <= _keys.MAX_BYTES
    assert text.count(":") >= 1
    assert "\n" not in text
    assert "\x00" not in text


@settings(max_examples=400, deadline=None)
@given(st.lists(items, min_size=2, max_size=2), st.lists(items, min_size=2, max_size=2))
def test_keys_calls_share_an_entry_only_if_their_arguments_are_the_same(a: list[Any], b: list[Any]) -> None:
    calls: list[int] = []
    with Cache() as cache:

        @cache.cached(ttl=60)
        def f(x: Any, y: Any) -> int:
            calls.append(1)
            return len(calls)

        same = identity(a) == identity(b)
        hashed_by_themselves = "Point" in repr(a)  # a frozen dataclass brings its own equality in memory
        first = f(*a)
        second = f(*b)
        assert hashed_by_themselves or (first == second) == same
        assert f(*a) == first


def test_keys_arguments_are_bound_before_they_are_compared(warm_cache: Cache) -> None:
    calls: list[int] = []

    @warm_cache.cached(ttl=60)
    def f(a: int, b: int = 2, *rest: int, c: int = 3, **more: int) -> int:
        calls.append(1)
        return len(calls)

    assert f(1) == f(1, 2) == f(a=1) == f(b=2, a=1) == f(1, c=3) == 1
    assert f(1, 2, 3) == 2
    assert f(1, x=1, y=2) == f(1, y=2, x=1) == 3
    assert f(1, x=2) == 4
    assert f(1, 2, 3, c=3) == 2
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        f()
    with pytest.raises(TypeError, match="multiple values"):
        f(1, a=1)


def test_keys_positional_only_and_keyword_only_parameters(warm_cache: Cache) -> None:
    calls: list[int] = []

    @warm_cache.cached(ttl=60)
    def f(a: int, /, b: int, *, c: int = 1) -> int:
        calls.append(1)
        return len(calls)

    assert f(1, 2) == f(1, b=2) == f(1, 2, c=1) == 1
    assert f(1, 2, c=2) == 2
    with pytest.raises(TypeError):
        f(a=1, b=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        f(1, 2, 3)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a:b", "c"), ("a", "b:c")),
        ((1,), ("1",)),
        ((1,), (1.0,)),
        ((1,), (True,)),
        ((0.0,), (-0.0,)),
        ((None,), ("None",)),
        ((b"a",), ("a",)),
        (((1,),), (1,)),
        (((1, 2),), ([1, 2],)),
        ((frozenset({1}),), (frozenset({1.0}),)),
        ((Decimal("1.0"),), (Decimal("1.00"),)),
        ((2**61 - 1,), (0,)),
        ((-1,), (-2,)),
        ((Colour.BLUE,), (1,)),
    ],
)
def test_keys_that_look_alike_are_different(warm_cache: Cache, one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    @warm_cache.cached(ttl=60)
    def f(*args: Any) -> tuple[Any, ...]:
        return args

    assert f(*one) is f(*one)
    assert f(*other) is not f(*one)
    assert f.cache_info().currsize == 2
    assert f.cache_key(*one) != f.cache_key(*other)


def test_keys_nan_is_itself(warm_cache: Cache) -> None:
    @warm_cache.cached(ttl=60)
    def f(x: float) -> object:
        return object()

    assert f(float("nan")) is f(float("nan"))


def test_keys_unhashable_arguments_are_keyed_by_content(warm_cache: Cache) -> None:
    calls: list[Any] = []

    @warm_cache.cached(ttl=60)
    def f(x: Any) -> int:
        calls.append(x)
        return len(calls)

    assert f([1, {"a": {2}}]) == f([1, {"a": {2}}]) == 1
    assert f([1, {"a": {2.0}}]) == 2
    assert f(Mutable(1)) == f(Mutable(1)) == 3
    assert f("[1]") != f([1])


def test_keys_an_argument_that_cannot_be_a_key_is_named(warm_cache: Cache) -> None:
    class Opaque:
        __hash__ = None  # type: ignore[assignment]

    @warm_cache.cached(ttl=60)
    def f(good: int, bad: Any = None) -> int:
        return 1

    with pytest.raises(KeyTypeError, match=r"argument 'bad' of .*f\(\) is a .*Opaque.*key=.*ignore=\('bad',\)"):
        f(1, Opaque())
    with pytest.raises(KeyTypeError, match="argument 'bad'"):
        f(1, bad=[Opaque()])
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(KeyTypeError, match="it contains itself"):
        f(1, loop)
    assert isinstance(KeyTypeError("x"), TypeError)


def test_keys_ignored_arguments_are_left_out(warm_cache: Cache) -> None:
    @warm_cache.cached(ttl=60, ignore=("session", "extra"))
    def f(session: object, x: int, *, extra: int = 0) -> object:
        return object()

    assert f(object(), 1) is f(object(), 1, extra=5)
    assert f(object(), 2) is not f(object(), 1)
    assert f.cache_key(object(), 1).endswith("f:1")


def test_keys_template_and_callable(warm_cache: Cache) -> None:
    warm_cache.define("scoring", ttl=60)

    @warm_cache.cached("scoring", key="scoring:{asin}:{domain}")
    def by_template(asin: Any, domain: int = 1) -> object:
        return object()

    @warm_cache.cached("scoring", key=lambda asin: f"scoring:{asin}:1")
    def by_callable(asin: str) -> object:
        return object()

    assert by_template.cache_key("B00") == "scoring:B00:1"
    assert by_template("B00") is by_template(asin="B00", domain=1)
    assert by_template(7) is by_template("7")  # equal by design
    assert by_callable("B00") is by_template("B00")  # the text is the whole key within the type
    assert by_template("a:b") is not by_template("a")
    assert by_template.cache_key("a:b") == "scoring:a%3Ab:1"
    assert warm_cache.invalidate(key="scoring:B00:1") == 1
    by_template.cache_clear()
    assert by_template.cache_info().currsize == 0


def test_keys_of_two_functions_of_one_name_are_apart(warm_cache: Cache) -> None:
    def make(n: int) -> Any:
        @warm_cache.cached(ttl=60)
        def f(x: int) -> int:
            return x + n

        return f

    one, two = make(1), make(2)
    assert (one(1), two(1), one(1)) == (2, 3, 2)


def test_keys_version_is_part_of_the_readable_key(warm_cache: Cache) -> None:
    @warm_cache.cached(ttl=60, version=2, name="score")
    def f(x: int) -> int:
        return x

    assert f.cache_key(1) == "score@2:1"


def test_keys_long_ones_are_cut_and_stay_different(warm_cache: Cache) -> None:
    @warm_cache.cached(ttl=60)
    def f(x: str) -> str:
        return x

    one, two = f.cache_key("x" * 1000 + "1"), f.cache_key("x" * 1000 + "2")
    assert one != two
    assert len(one) <= 200
    f("x" * 1000 + "1")
    assert warm_cache.invalidate(key=two) == 0
    assert warm_cache.invalidate(key=one) == 1


def test_keys_hostile_objects_behave(warm_cache: Cache) -> None:
    class Same:
        def __init__(self, name: str) -> None:
            self.name = name

        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            f.cache_clear()  # changes the table it is compared in
            return isinstance(other, Same) and self.name == other.name

    class Broken(Same):
        def __eq__(self, other: object) -> bool:
            raise ValueError("cannot compare")

        __hash__ = Same.__hash__

    @warm_cache.cached(ttl=60)
    def f(x: Any) -> str:
        return x.name  # type: ignore[no-any-return]

    assert f(Same("a")) == "a"
    assert f(Same("b")) == "b"
    assert f(Same("a")) == "a"

    @warm_cache.cached(ttl=60)
    def g(x: Any) -> str:
        return "x"

    g(Broken("a"))
    with pytest.raises(ValueError, match="cannot compare"):
        g(Broken("b"))

    class Unhashable(Exception):
        pass

    class Raises:
        def __hash__(self) -> int:
            raise Unhashable

    with pytest.raises(Unhashable):
        g(Raises())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"key": "score:{nope}"}, "has no argument 'nope'; accepted: x"),
        ({"key": "score:{x!r}"}, "plain fields"),
        ({"key": "score:{"}, "accepted: a template"),
        ({"key": 5}, "key=5: accepted: a template"),
        ({"ignore": ("y",)}, "ignore='y': .* has no such argument; accepted: x"),
        ({"ignore": "x"}, "ignore='x': accepted: a sequence"),
        ({"name": ""}, "name=''"),
    ],
)
def test_keys_mistakes_show_when_decorating(warm_cache: Cache, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):

        @warm_cache.cached(ttl=60, **options)
        def f(x: int) -> int:
            return x


def test_keys_key_callable_must_return_text(warm_cache: Cache) -> None:
    @warm_cache.cached(ttl=60, key=lambda x: x)
    def f(x: Any) -> Any:
        return x

    with pytest.raises(KeyTypeError, match="returned a int; accepted: a str"):
        f(1)


def test_keys_uuid_and_others_read_well() -> None:
    point = Point(1, "a")
    assert _keys.encode(uuid.UUID(int=1)) == "UUID(00000000-0000-0000-0000-000000000001)"
    assert _keys.encode(point) == f"{__name__}.Point{{x=1,y='a'}}"
    assert _keys.encode(Colour.RED) == f"{__name__}.Colour.RED"
    assert _keys.encode((1,)) == "(1,)"
    assert _keys.encode(object, strict=False).startswith("builtins.type(")
