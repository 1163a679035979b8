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

std::uint64_t weigh(PyObject* value);

}  // namespace stillwarm::py
