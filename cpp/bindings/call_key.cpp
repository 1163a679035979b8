#include "bindings/call_key.hpp"

namespace stillwarm::py {
namespace {

PyObject* freeze_hook = nullptr;

// Room for `count` items; the part that is not filled is nullptr.
PyObject** allocate(KeyRow& row, Py_ssize_t count) {
  PyObject** place = row.place;
  if (count > KeyRow::kInline) {
    place = row.heap = static_cast<PyObject**>(PyMem_Malloc(static_cast<std::size_t>(count) * sizeof(PyObject*)));
    if (place == nullptr) {
      PyErr_NoMemory();
      return nullptr;
    }
  }
  for (Py_ssize_t i = 0; i < count; ++i) place[i] = nullptr;
  row.items = place;
  return place;
}

// The place of a keyword among the parameters, or -1. Names are interned as a rule, so identity finds them.
Py_ssize_t place_of(const Signature& s, PyObject* name) {
  const Py_ssize_t count = s.parameters();
  for (Py_ssize_t i = s.positional_only; i < count; ++i) {
    if (s.names[i] == name) return i;
  }
  for (Py_ssize_t i = s.positional_only; i < count; ++i) {
    if (PyUnicode_Compare(s.names[i], name) == 0) return i;
  }
  return -1;
}

PyObject* sorted_pairs(PyObject* pairs) {
  if (PyList_Sort(pairs) != 0) return nullptr;  // names differ, so values are never compared
  return PyList_AsTuple(pairs);
}

}  // namespace

void set_freeze(PyObject* freeze) { freeze_hook = Py_NewRef(freeze); }

bool KeyRow::keep(PyObject* made) {
  if (keepalive == nullptr) keepalive = PyList_New(0);
  const bool kept = keepalive != nullptr && PyList_Append(keepalive, made) == 0;
  Py_DECREF(made);
  return kept;
}

Bound bind(const Signature& s, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames, KeyRow& row) {
  const Py_ssize_t parameters = s.parameters();
  PyObject** bound = allocate(row, parameters + 2);
  if (bound == nullptr) return Bound::kError;
  const Py_ssize_t placed = nargs < s.positional ? nargs : s.positional;
  for (Py_ssize_t i = 0; i < placed; ++i) bound[i] = args[i];
  if (nargs > s.positional && !s.var_positional) return Bound::kMisfit;
  PyObject* extra = nullptr;  // list of (name, value)
  const Py_ssize_t keywords = kwnames == nullptr ? 0 : PyTuple_GET_SIZE(kwnames);
  for (Py_ssize_t k = 0; k < keywords; ++k) {
    PyObject* name = PyTuple_GET_ITEM(kwnames, k);
    PyObject* value = args[nargs + k];
    const Py_ssize_t at = place_of(s, name);
    if (at >= 0) {
      if (bound[at] != nullptr) {
        Py_XDECREF(extra);
        return Bound::kMisfit;
      }
      bound[at] = value;
      continue;
    }
    if (!s.var_keyword) {
      Py_XDECREF(extra);
      return Bound::kMisfit;
    }
    if (extra == nullptr) extra = PyList_New(0);
    PyObject* pair = extra == nullptr ? nullptr : PyTuple_Pack(2, name, value);
    if (pair == nullptr || PyList_Append(extra, pair) != 0) {
      Py_XDECREF(pair);
      Py_XDECREF(extra);
      return Bound::kError;
    }
    Py_DECREF(pair);
  }
  for (Py_ssize_t i = 0; i < parameters; ++i) {
    if (bound[i] != nullptr) continue;
    if (s.defaults[i] == nullptr) {
      Py_XDECREF(extra);
      return Bound::kMisfit;
    }
    bound[i] = s.defaults[i];
  }
  Py_ssize_t count = 0;
  for (Py_ssize_t i = 0; i < parameters; ++i) {
    if (!s.ignored[i]) bound[count++] = bound[i];
  }
  if (s.var_positional && !s.ignored[parameters]) {
    const Py_ssize_t rest = nargs > s.positional ? nargs - s.positional : 0;
    PyObject* tuple = PyTuple_New(rest);
    if (tuple == nullptr) {
      Py_XDECREF(extra);
      return Bound::kError;
    }
    for (Py_ssize_t i = 0; i < rest; ++i) PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[s.positional + i]));
    bound[count++] = tuple;
    if (!row.keep(tuple)) {
      Py_XDECREF(extra);
      return Bound::kError;
    }
  }
  if (s.var_keyword && !s.ignored[parameters + 1]) {
    PyObject* tuple = extra == nullptr ? PyTuple_New(0) : sorted_pairs(extra);
    Py_CLEAR(extra);
    if (tuple == nullptr) return Bound::kError;
    bound[count++] = tuple;
    if (!row.keep(tuple)) return Bound::kError;
  }
  Py_XDECREF(extra);
  row.count = count;
  return Bound::kOk;
}

bool hash_row(KeyRow& row, std::uint64_t salt, PyObject* owner, std::uint64_t& hash) {
  for (;;) {
    Py_ssize_t which = 0;
    const Hashed hashed = hash_items(row.items, row.count, salt, hash, which);
    if (hashed == Hashed::kOk) return true;
    if (hashed == Hashed::kError) return false;
    if (row.items != row.place && row.items != row.heap) {  // the caller's arguments: copy before changing
      PyObject* const* from = row.items;
      PyObject** to = allocate(row, row.count);
      if (to == nullptr) return false;
      for (Py_ssize_t i = 0; i < row.count; ++i) to[i] = from[i];
    }
    PyObject* frozen = PyObject_CallFunction(freeze_hook, "OnO", owner, which, row.items[which]);
    if (frozen == nullptr) return false;
    const_cast<PyObject**>(row.items)[which] = frozen;
    if (!row.keep(frozen)) return false;
  }
}

}  // namespace stillwarm::py
