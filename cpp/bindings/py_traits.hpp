// Python objects as keys: how they are hashed, compared, owned.
//
// Thread rule: with the GIL.
// Refuses to know: functions and their arguments (call_key.hpp), caches.
//
// A key is a row of items: the arguments of a call in the order of its signature. One item is stored as itself, any
// other number as a tuple. Items of exact built-in types (None, bool, int, float, str, bytes, tuple of such) are hashed
// and compared here and run no Python code; they are typed: 1, 1.0, True and "1" are four keys. An object of another
// type brings its own __hash__ and __eq__, and equals only objects of exactly its type.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstring>

#include "core/base/scope.hpp"
#include "core/base/traits.hpp"

namespace stillwarm::py {

struct Probe {
  std::uint64_t hash = 0;
  ScopeId scope = 0;
  const ScopeTable* shared = nullptr;  // set where scopes share keys (see Scope::key_scope)
  PyObject* const* items = nullptr;    // borrowed
  Py_ssize_t count = 0;
};

inline bool same_text(PyObject* a, PyObject* b) noexcept {
  const Py_ssize_t length = PyUnicode_GET_LENGTH(a);
  const auto kind = PyUnicode_KIND(a);
  return length == PyUnicode_GET_LENGTH(b) && kind == PyUnicode_KIND(b) &&
         std::memcmp(PyUnicode_DATA(a), PyUnicode_DATA(b), static_cast<std::size_t>(length) * kind) == 0;
}

struct Traits {
  using Probe = py::Probe;
  // Most keys are one str of the same scope: that is decided here, without a call.
  static Match match(ScopeId scope, Handle stored, const Probe& probe) {
    auto* key = static_cast<PyObject*>(stored);
    if (probe.count == 1 && scope == probe.scope) [[likely]] {
      PyObject* wanted = probe.items[0];
      if (key == wanted) return Match::kYes;
      if (PyUnicode_CheckExact(key) && PyUnicode_CheckExact(wanted))
        return same_text(key, wanted) ? Match::kYes : Match::kNo;
    }
    return match_slow(scope, key, probe);
  }
  static Match match_slow(ScopeId scope, PyObject* key, const Probe& probe);
  static void never_settles(const Probe& probe);
};

enum class Hashed : std::uint8_t { kOk, kError, kByContent };  // kByContent: unhashable, or equal where it must not be

// The hash of one item, not salted. kByContent: _keys.freeze has to make a `Content` of it first.
Hashed hash_item(PyObject* item, std::uint64_t& out);

inline std::uint64_t mix(std::uint64_t a, std::uint64_t b) noexcept {
  const auto product = static_cast<unsigned __int128>(a ^ 0x9E3779B97F4A7C15ULL) * (b ^ 0xE7037ED1A0B428DBULL);
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

// Of a tag's text: seeded per process with Python's own hash of str, so it is never stored or sent. False with an
// exception.
inline bool tag_fingerprint(PyObject* tag, std::uint64_t& out) {
  const Py_hash_t h = PyObject_Hash(tag);
  out = mix(static_cast<std::uint64_t>(h), 0x7461675F66696E67ULL);
  return h != -1;
}

// Hash of a row of items; on kByContent `which` is the item's place.
Hashed hash_items(PyObject* const* items, Py_ssize_t count, std::uint64_t salt, std::uint64_t& out, Py_ssize_t& which);

inline Hashed hash_str(PyObject* text, std::uint64_t salt, std::uint64_t& out) {
  Py_hash_t h = reinterpret_cast<PyASCIIObject*>(text)->hash;
  if (h == -1) [[unlikely]] {
    h = PyObject_Hash(text);
    if (h == -1) return Hashed::kError;
  }
  out = mix(static_cast<std::uint64_t>(h), salt);
  return Hashed::kOk;
}

// A new reference to the stored form; nullptr with MemoryError. May run the collector, and so any code.
PyObject* own_key(PyObject* const* items, Py_ssize_t count);

// _keys.py tells which class `Content` is, and which types are always keyed by content.
void set_content_types(PyObject* content, PyObject* by_content);

}  // namespace stillwarm::py
