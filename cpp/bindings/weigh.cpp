#include "bindings/weigh.hpp"

namespace stillwarm::py {
namespace {

constexpr Py_ssize_t kSample = 32;
constexpr int kDepth = 6;
constexpr std::uint64_t kGcHeader = 16;
// What an object may claim to weigh, so that a sum of a sample, extrapolated, stays below 2^64.
constexpr std::uint64_t kMost = std::uint64_t{1} << 40;

std::uint64_t size_of(PyObject* value) {
  PyObject* size = nullptr;
  PyObject* getsizeof = PySys_GetObject("getsizeof");  // borrowed
  if (getsizeof != nullptr) size = PyObject_CallOneArg(getsizeof, value);
  std::uint64_t bytes = kUnknown;
  if (size != nullptr) {
    const unsigned long long told = PyLong_AsUnsignedLongLong(size);
    if (!PyErr_Occurred()) bytes = told < kMost ? told : kMost;
    Py_DECREF(size);
  }
  if (PyErr_Occurred() != nullptr) {
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) PyErr_SetInterrupt();  // not here, and not lost
    PyErr_Clear();
  }
  return bytes;
}

std::uint64_t weigh_at(PyObject* value, int depth, int& steps);

std::uint64_t extrapolated(std::uint64_t bytes, std::uint64_t sampled, std::uint64_t count) {
  const double all = static_cast<double>(bytes) / static_cast<double>(sampled) * static_cast<double>(count);
  return all < static_cast<double>(kMost) ? static_cast<std::uint64_t>(all) : kMost;
}

std::uint64_t weigh_row(PyObject* const* items, Py_ssize_t count, int depth, int& steps) {
  const Py_ssize_t sampled = count < kSample ? count : kSample;
  std::uint64_t bytes = 0;
  for (Py_ssize_t i = 0; i < sampled; ++i) {
    // Spread over the whole row: the first items of a table are often its smallest.
    PyObject* item = items[i * count / sampled];
    if (item != nullptr) bytes += weigh_at(item, depth + 1, steps);
  }
  return sampled == 0 ? 0 : extrapolated(bytes, static_cast<std::uint64_t>(sampled), static_cast<std::uint64_t>(count));
}

std::uint64_t weigh_dict(PyObject* dict, int depth, int& steps) {
  const Py_ssize_t count = PyDict_Size(dict);
  Py_ssize_t at = 0, sampled = 0;
  PyObject *key = nullptr, *value = nullptr;
  std::uint64_t bytes = 0;
  while (sampled < kSample && PyDict_Next(dict, &at, &key, &value)) {
    // Weighing an inexact item may run Python code that changes the dict.
    Py_INCREF(key);
    Py_INCREF(value);
    bytes += weigh_at(key, depth + 1, steps) + weigh_at(value, depth + 1, steps);
    Py_DECREF(key);
    Py_DECREF(value);
    ++sampled;
  }
  if (sampled == 0) return 0;
  bytes += 36 * static_cast<std::uint64_t>(sampled);
  return extrapolated(bytes, static_cast<std::uint64_t>(sampled), static_cast<std::uint64_t>(count));
}

std::uint64_t weigh_set(PyObject* set, int depth, int& steps) {
  PyObject* iterator = PyObject_GetIter(set);
  if (iterator == nullptr) {
    PyErr_Clear();
    return 0;
  }
  std::uint64_t bytes = 0, sampled = 0;
  while (sampled < kSample) {
    PyObject* item = PyIter_Next(iterator);
    if (item == nullptr) break;
    bytes += weigh_at(item, depth + 1, steps) + 32;
    Py_DECREF(item);
    ++sampled;
  }
  PyErr_Clear();
  Py_DECREF(iterator);
  return sampled == 0 ? 0 : extrapolated(bytes, sampled, static_cast<std::uint64_t>(PySet_GET_SIZE(set)));
}

std::uint64_t weigh_at(PyObject* value, int depth, int& steps) {
  PyTypeObject* type = Py_TYPE(value);
  if (value == Py_None || type == &PyBool_Type) return 0;
  if (type == &PyUnicode_Type) return weigh(value);
  if (type == &PyLong_Type || type == &PyFloat_Type) return type == &PyFloat_Type ? 24 : 28;
  if (type == &PyBytes_Type) return sizeof(PyBytesObject) + static_cast<std::uint64_t>(PyBytes_GET_SIZE(value));
  const bool deep = depth < kDepth && ++steps < 4096;
  if (type == &PyTuple_Type || type == &PyList_Type) {
    const Py_ssize_t count = Py_SIZE(value);
    const std::uint64_t own = kGcHeader + 40 + 8 * static_cast<std::uint64_t>(count);
    if (!deep) return own;
    if (type == &PyTuple_Type) {
      return own + weigh_row(reinterpret_cast<PyTupleObject*>(value)->ob_item, count, depth, steps);
    }
    // A list may change while an item is weighed: weigh a copy of the sampled part.
    PyObject* copy = PyList_AsTuple(value);
    if (copy == nullptr) {
      PyErr_Clear();
      return own;
    }
    const std::uint64_t bytes =
        own + weigh_row(reinterpret_cast<PyTupleObject*>(copy)->ob_item, PyTuple_GET_SIZE(copy), depth, steps);
    Py_DECREF(copy);
    return bytes;
  }
  if (type == &PyDict_Type) return kGcHeader + 64 + (deep ? weigh_dict(value, depth, steps) : 0);
  if (type == &PySet_Type || type == &PyFrozenSet_Type) return 216 + (deep ? weigh_set(value, depth, steps) : 0);
  return size_of(value);
}

}  // namespace

std::uint64_t weigh_slowly(PyObject* value) {
  int steps = 0;
  return weigh_at(value, 0, steps);
}

}  // namespace stillwarm::py
