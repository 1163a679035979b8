// The arguments of a call -> the row of items that is its key.
//
// Thread rule: with the GIL. May run Python code (default objects are only borrowed; sorting names, freezing items).
// Refuses to know: caches and loads.
//
// The row is the bound signature: every parameter in its place, defaults filled in, so that f(1), f(x=1) and f(1,
// y=<default>) are one key. *args become one tuple, **kwargs one tuple of (name, value) pairs sorted by name. Ignored
// parameters are left out. A call that does not fit the signature has no key: calling the function then raises the
// right TypeError.
#pragma once

#include <vector>

#include "bindings/py_traits.hpp"

namespace stillwarm::py {

struct Signature {
  std::vector<PyObject*> names;     // owned, interned: positional ones, then keyword-only ones
  std::vector<PyObject*> defaults;  // owned, nullptr where there is none
  std::vector<char> ignored;        // as many as names, then one for *args and one for **kwargs
  Py_ssize_t positional_only = 0;
  Py_ssize_t positional = 0;  // positional-only ones included
  bool var_positional = false;
  bool var_keyword = false;
  bool plain = false;    // no *args, no **kwargs, nothing ignored: positional arguments are the row as they are
  Py_ssize_t count = 0;  // items of a row

  Py_ssize_t parameters() const noexcept { return static_cast<Py_ssize_t>(names.size()); }
};

// The row of one call. Plain data: clear() before the frame is left, no destructor (see cache_base.hpp).
struct KeyRow {
  static constexpr Py_ssize_t kInline = 16;

  PyObject* const* items;
  Py_ssize_t count;
  PyObject** heap;      // where a long row lives
  PyObject* keepalive;  // list of what was made for the row, or nullptr
  PyObject* place[kInline];

  void init() noexcept {
    items = place;
    count = 0;
    heap = nullptr;
    keepalive = nullptr;
  }
  void clear() noexcept {
    if (heap != nullptr) PyMem_Free(heap);
    heap = nullptr;
    Py_CLEAR(keepalive);
  }
  // Keeps a new reference alive as long as the row; false with MemoryError, and then it is released.
  bool keep(PyObject* made);
};

enum class Bound : std::uint8_t { kOk, kError, kMisfit };

Bound bind(const Signature& s, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames, KeyRow& row);

// Hashes the row. Items that are keyed by content are replaced by what `freeze(which, item)` of `owner` makes of them.
bool hash_row(KeyRow& row, std::uint64_t salt, PyObject* owner, std::uint64_t& hash);

// _keys.freeze(owner, place, item) -> Content; raises KeyTypeError that names the argument.
void set_freeze(PyObject* freeze);

}  // namespace stillwarm::py
