#include "bindings/py_traits.hpp"

#include <bit>

namespace stillwarm::py {
namespace {

PyTypeObject* content_type = nullptr;
PyObject* by_content_types = nullptr;

bool is_text(const PyTypeObject* type) { return type == &PyUnicode_Type || type == content_type; }

Match as_match(bool yes) { return yes ? Match::kYes : Match::kNo; }

Match same_items(PyObject* const* a, PyObject* const* b, Py_ssize_t count);

Match same_item(PyObject* a, PyObject* b) {
  if (a == b) return Match::kYes;
  PyTypeObject* type = Py_TYPE(a);
  if (type != Py_TYPE(b)) return Match::kNo;
  if (is_text(type)) return as_match(same_text(a, b));
  if (type == &PyLong_Type) {
    PyObject* equal = PyLong_Type.tp_richcompare(a, b, Py_EQ);  // exact ints: no Python code, no failure
    const bool yes = equal == Py_True;
    Py_DECREF(equal);
    return as_match(yes);
  }
  if (type == &PyFloat_Type) {
    // Bits, not numbers:
    const auto x = std::bit_cast<std::uint64_t>(PyFloat_AS_DOUBLE(a));
    return as_match(x == std::bit_cast<std::uint64_t>(PyFloat_AS_DOUBLE(b)));  // -0.0 is not 0.0, and a NaN is itself
  }
  if (type == &PyBytes_Type) {
    const Py_ssize_t size = PyBytes_GET_SIZE(a);
    return as_match(size == PyBytes_GET_SIZE(b) &&
                    std::memcmp(PyBytes_AS_STRING(a), PyBytes_AS_STRING(b), static_cast<std::size_t>(size)) == 0);
  }
  if (type == &PyBool_Type || a == Py_None) return Match::kNo;
  if (type == &PyTuple_Type) {
    const Py_ssize_t count = PyTuple_GET_SIZE(a);
    if (count != PyTuple_GET_SIZE(b)) return Match::kNo;
    if (Py_EnterRecursiveCall(" while comparing a cache key") != 0) return Match::kError;
    const Match match =
        same_items(reinterpret_cast<PyTupleObject*>(a)->ob_item, reinterpret_cast<PyTupleObject*>(b)->ob_item, count);
    Py_LeaveRecursiveCall();
    return match;
  }
  const int equal = PyObject_RichCompareBool(a, b, Py_EQ);  // the foreign code of table.hpp
  return equal < 0 ? Match::kError : as_match(equal == 1);
}

Match same_items(PyObject* const* a, PyObject* const* b, Py_ssize_t count) {
  for (Py_ssize_t i = 0; i < count; ++i) {
    const Match match = same_item(a[i], b[i]);
    if (match != Match::kYes) return match;
  }
  return Match::kYes;
}

}  // namespace

void set_content_types(PyObject* content, PyObject* by_content) {
  content_type = reinterpret_cast<PyTypeObject*>(Py_NewRef(content));
  by_content_types = Py_NewRef(by_content);
}

Match Traits::match_slow(ScopeId scope, PyObject* key, const Probe& probe) {
  if (scope != probe.scope) {
    if (probe.shared == nullptr || (*probe.shared)[scope].key_scope != (*probe.shared)[probe.scope].key_scope) {
      return Match::kNo;
    }
  }
  if (probe.count == 1) {
    if (is_text(Py_TYPE(key)) && Py_TYPE(key) == Py_TYPE(probe.items[0])) {
      return as_match(same_text(key, probe.items[0]));
    }
    Py_INCREF(key);  // the entry may go while foreign code runs
    const Match match = same_item(key, probe.items[0]);
    Py_DECREF(key);
    return match;
  }
  if (PyTuple_GET_SIZE(key) != probe.count) return Match::kNo;
  Py_INCREF(key);
  const Match match = same_items(reinterpret_cast<PyTupleObject*>(key)->ob_item, probe.items, probe.count);
  Py_DECREF(key);
  return match;
}

void Traits::never_settles(const Probe&) {
  PyErr_SetString(PyExc_RuntimeError,
                  "comparing this key changes the cache every time: its __eq__ must not use the cache");
}

Hashed hash_item(PyObject* item, std::uint64_t& out) {
  PyTypeObject* type = Py_TYPE(item);
  if (type == &PyUnicode_Type || type == &PyBytes_Type || type == content_type) {
    const Py_hash_t h = PyObject_Hash(item);
    out = static_cast<std::uint64_t>(h);
    return h == -1 ? Hashed::kError : Hashed::kOk;
  }
  if (type == &PyLong_Type) {
    int overflow = 0;
    out = static_cast<std::uint64_t>(PyLong_AsLongLongAndOverflow(item, &overflow));
    if (overflow == 0) return Hashed::kOk;
    // hash(int) is the value modulo 2^61 - 1, so that colliding large integers are easy to make: hash the digits.
    PyObject* digits = PyNumber_ToBase(item, 16);
    if (digits == nullptr) return Hashed::kError;
    out = static_cast<std::uint64_t>(PyObject_Hash(digits));
    Py_DECREF(digits);
    return Hashed::kOk;
  }
  if (item == Py_None || type == &PyBool_Type) {
    out = item == Py_None ? 0x6E6F6E65 : item == Py_True ? 0x74727565 : 0x66616C73;
    return Hashed::kOk;
  }
  if (type == &PyFloat_Type) {
    const double x = PyFloat_AS_DOUBLE(item);
    std::memcpy(&out, &x, sizeof x);
    return Hashed::kOk;
  }
  if (type == &PyTuple_Type) {
    if (Py_EnterRecursiveCall(" while hashing a cache key") != 0) return Hashed::kError;
    Py_ssize_t which = 0;
    const Hashed hashed =
        hash_items(reinterpret_cast<PyTupleObject*>(item)->ob_item, PyTuple_GET_SIZE(item), 0x74757031, out, which);
    Py_LeaveRecursiveCall();
    return hashed;
  }
  if (by_content_types != nullptr) {
    const int listed = PySet_Contains(by_content_types, reinterpret_cast<PyObject*>(type));
    if (listed != 0) return listed < 0 ? Hashed::kError : Hashed::kByContent;
  }
  if (type->tp_hash == nullptr || type->tp_hash == PyObject_HashNotImplemented) return Hashed::kByContent;
  const Py_hash_t h = PyObject_Hash(item);
  if (h == -1) {
    if (!PyErr_ExceptionMatches(PyExc_TypeError)) return Hashed::kError;
    PyErr_Clear();
    return Hashed::kByContent;
  }
  out = static_cast<std::uint64_t>(h);
  return Hashed::kOk;
}

Hashed hash_items(PyObject* const* items, Py_ssize_t count, std::uint64_t salt, std::uint64_t& out, Py_ssize_t& which) {
  std::uint64_t hash = salt;
  if (count != 1) hash = mix(hash, static_cast<std::uint64_t>(count));
  for (Py_ssize_t i = 0; i < count; ++i) {
    std::uint64_t h = 0;
    const Hashed hashed = hash_item(items[i], h);
    if (hashed != Hashed::kOk) {
      which = i;
      return hashed;
    }
    hash = mix(h, hash);
  }
  out = hash;
  return Hashed::kOk;
}

PyObject* own_key(PyObject* const* items, Py_ssize_t count) {
  if (count == 1) return Py_NewRef(items[0]);
  PyObject* key = PyTuple_New(count);
  if (key == nullptr) return nullptr;
  for (Py_ssize_t i = 0; i < count; ++i) PyTuple_SET_ITEM(key, i, Py_NewRef(items[i]));
  return key;
}

}  // namespace stillwarm::py
