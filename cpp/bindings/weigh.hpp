// How many bytes a value weighs in the byte budget.
//
// Thread rule: with the GIL. Runs no Python code for exact built-in types; sys.getsizeof (and so a __sizeof__) for
// others. Refuses to know: caches. It never fails: a size that cannot be told counts as kUnknown.
//
// Exact built-in containers are walked, 32 items of each, and the rest is extrapolated, because sys.getsizeof of a
// parsed JSON list can be a hundredth of what it holds.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstdint>

namespace stillwarm::py {

inline constexpr std::uint64_t kUnknown = 256;
// An entry with its table slot and its share of the frequency sketch.
inline constexpr std::uint64_t kEntryOverhead = 100;

std::uint64_t weigh_slowly(PyObject* value);

inline std::uint64_t weigh(PyObject* value) {
  if (value == Py_None) return 0;
  if (!PyUnicode_CheckExact(value)) return weigh_slowly(value);
  const std::uint64_t head = PyUnicode_IS_ASCII(value) ? sizeof(PyASCIIObject) : sizeof(PyCompactUnicodeObject);
  return head + (static_cast<std::uint64_t>(PyUnicode_GET_LENGTH(value)) + 1) * PyUnicode_KIND(value);
}

}  // namespace stillwarm::py
