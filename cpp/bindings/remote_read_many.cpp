// Many direct keys in one look-up. See remote_read.hpp.
#include <memory>
#include <new>

#include "bindings/py_traits.hpp"
#include "bindings/remote_read.hpp"

namespace stillwarm::py {

namespace {

// Takes the reference. False with an exception.
bool append(PyObject* list, PyObject* item) {
  const bool done = item != nullptr && PyList_Append(list, item) == 0;
  Py_XDECREF(item);
  return done;
}

// What was begun of a key goes where it belongs. False with an exception; a flight is then in no list.
bool sort_in(PyObject* key, PyObject* begun, PyObject* found, PyObject* asked, PyObject* rest, LookUp& look) {
  PyObject* const value = PyTuple_GET_ITEM(begun, 1);
  PyObject* const flight = PyTuple_GET_ITEM(begun, 2);
  const long step = PyLong_AsLong(PyTuple_GET_ITEM(begun, 0));
  if ((step == PythonStep::kReturn || step == PythonStep::kReturnStale) && flight == Py_None)
    return PyDict_SetItem(found, key, value) == 0;
  if (step != PythonStep::kLead && step != PythonStep::kFollow) {
    return append(rest, Py_BuildValue("OOOO", key, PyTuple_GET_ITEM(begun, 0), value, flight));
  }
  look.keys.emplace_back(storable(key));
  look.types.emplace_back("direct");
  return append(asked, Py_BuildValue("OO", key, step == PythonStep::kLead ? flight : Py_None));
}

bool all_storable(PyObject* keys) {
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(keys); ++i) {
    PyObject* const key = PyList_GET_ITEM(keys, i);
    if (!PyUnicode_CheckExact(key) || storable(key).data() == nullptr) return false;
  }
  return true;
}

// Flights that stand at this place of each tuple.
void land_all(PyObject* list, Py_ssize_t place) {
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); ++i) {
    PyObject* const flight = PyTuple_GET_ITEM(PyList_GET_ITEM(list, i), place);
    if (flight != Py_None) land_missing(as_flight(flight));
  }
}

bool begin_all(PyObject* cache, PyObject* keys, bool count, PyObject* found, PyObject* asked, PyObject* rest,
               LookUp& look) {
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(keys); ++i) {
    PyObject* const key = PyList_GET_ITEM(keys, i);
    Probe probe;
    PyObject* const begun =
        text_probe(as_cache(cache), 0, &key, probe) ? begin(as_cache(cache), probe, count) : nullptr;
    if (begun == nullptr) return false;
    bool done = false;
    try {
      done = sort_in(key, begun, found, asked, rest, look);
    } catch (const std::bad_alloc&) {
      PyErr_NoMemory();
    }
    PyObject* const flight = PyTuple_GET_ITEM(begun, 2);
    if (!done && flight != Py_None && PyLong_AsLong(PyTuple_GET_ITEM(begun, 0)) != PythonStep::kFollow) {
      land_missing(as_flight(flight));
    }
    Py_DECREF(begun);
    if (!done) return false;
  }
  return true;
}

}  // namespace

PyObject* begin_many(PyObject* cache, PyObject* keys, bool count) {
  if (!all_storable(keys)) return Py_NewRef(Py_None);
  const auto look = std::make_shared<LookUp>();
  PyObject* const found = PyDict_New();
  PyObject* const asked = PyList_New(0);
  PyObject* const rest = PyList_New(0);
  PyObject* result = nullptr;
  if (found != nullptr && asked != nullptr && rest != nullptr) {
    PyObject* request = nullptr;
    if (begin_all(cache, keys, count, found, asked, rest, *look)) {
      request = look->keys.empty() ? Py_NewRef(Py_None) : request_of(look);
    }
    if (request != nullptr) result = Py_BuildValue("ONOO", found, request, asked, rest);
    if (result == nullptr) {
      land_all(asked, 1);
      land_all(rest, 3);
    }
  }
  Py_XDECREF(found);
  Py_XDECREF(asked);
  Py_XDECREF(rest);
  return result;
}

PyObject* land_many(Reader& reader, const LookUp& look, PyObject* begun, PyObject* found) {
  PyObject* const left = PyList_New(0);
  if (left == nullptr) return nullptr;
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(begun); ++i) {
    const auto n = static_cast<std::size_t>(i);
    PyObject* const pair = PyList_GET_ITEM(begun, i);
    PyObject* const flight = PyTuple_GET_ITEM(pair, 1);
    bool done = true;
    if (!look.found[n].found) {
      if (flight != Py_None) land_missing(as_flight(flight));
    } else if (flight == Py_None) {
      done = append(left, PyLong_FromSsize_t(i));
    } else {
      PyObject* const value = land_found(reader, as_flight(flight), look, n, {reader.decode, reader.codec});
      if (value == missing) {
        done = append(left, PyLong_FromSsize_t(i));
      } else {
        done = value != nullptr && PyDict_SetItem(found, PyTuple_GET_ITEM(pair, 0), value) == 0;
      }
      Py_XDECREF(value);
    }
    if (!done) {
      Py_DECREF(left);
      return nullptr;
    }
  }
  ++reader.served;
  return left;
}

}  // namespace stillwarm::py
