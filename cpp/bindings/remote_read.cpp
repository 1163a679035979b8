#include "bindings/remote_read.hpp"

#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <string>

#include "bindings/py_traits.hpp"
#include "bindings/remote_request.hpp"

namespace stillwarm::py {

namespace {

constexpr std::size_t kMostBytes = 200;  // of a key's text: _keys.MAX_BYTES
constexpr const char* kDirect = "direct";

// Does what may throw. False: an exception of Python's is set. Through the interpreter's C code nothing may be thrown,
// and of pybind11's own errors (no memory for a tuple) not all are of the two first kinds.
template <class What>
bool is_done(const What& what) {
  try {
    what();
    return true;
  } catch (pybind11::error_already_set& raised) {
    raised.restore();
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& other) {
    if (PyErr_Occurred() == nullptr) PyErr_SetString(PyExc_RuntimeError, other.what());
  }
  return false;
}

// An exception that is set stays.
void wake_tasks(PyObject* tasks) {
  PyObject *type = nullptr, *raised = nullptr, *traceback = nullptr;
  PyErr_Fetch(&type, &raised, &traceback);
  wake(tasks);
  PyErr_Restore(type, raised, traceback);
}

// The payload as bytes; nullptr without an exception: not for us, with one: no memory.
PyObject* payload_of(const Reader& reader, const LookUp& look, std::size_t i, int codec, Envelope& e) {
  const Found& found = look.found[i];
  DecodeLimits limits;
  limits.largest = reader.max_value;
  std::string sealed_as;
  sealed_as.reserve(look.types[i].size() + 1 + look.keys[i].size());
  sealed_as.append(look.types[i]).append(1, '\n').append(look.keys[i]);
  std::string body;
  const Opened opened = reader.dictionaries->open_value(found.payload, key_hash(reader.key_space, sealed_as), limits,
                                                        look.types[i], e, body);
  if (opened != Opened::kOk || e.negative || e.codec != codec) return nullptr;
  return PyBytes_FromStringAndSize(body.data(), static_cast<Py_ssize_t>(body.size()));
}

// False: an exception, or a tag that is no text of Python's.
bool fingerprints_of(const std::vector<std::string>& tags, std::vector<std::uint64_t>& out) {
  for (const std::string& tag : tags) {
    PyObject* text = PyUnicode_DecodeUTF8(tag.data(), static_cast<Py_ssize_t>(tag.size()), nullptr);
    if (text == nullptr) return false;
    std::uint64_t fingerprint = 0;
    const bool hashed = tag_fingerprint(text, fingerprint);
    Py_DECREF(text);
    if (!hashed) return false;
    out.push_back(fingerprint);
  }
  return true;
}

PyObject* nothing_done() {
  if (PyErr_Occurred() != nullptr && PyErr_ExceptionMatches(PyExc_Exception) == 0) return nullptr;  // Ctrl-C
  PyErr_Clear();  // Python does it again, and says what is wrong
  return Py_NewRef(missing);
}

// In memory, counted. False with an exception.
bool adopted(PyFlight* f, PyObject* value, const Found& found, const Envelope& e) {
  Keep keep;
  if (!fingerprints_of(found.tags, keep.tags)) return false;
  Stored stored = Stored::kNotKept;
  keep.weight = found.payload.size();
  if (!adopt(f, value, {e.ttl, e.stale_while_revalidate, e.stale_if_error, e.keep}, found.fresh_left, keep, stored))
    return false;
  bool kept = false;
  if (!count_remote_hit(f, false, kept)) return false;
  if (kept) return true;
  PyObject* counted = PyObject_CallOneArg(hooks.count_elsewhere, reinterpret_cast<PyObject*>(f));
  Py_XDECREF(counted);
  return counted != nullptr;
}

// Null with an exception.
std::shared_ptr<LookUp> look_up(std::string_view text) {
  try {
    auto look = std::make_shared<LookUp>();
    look->keys.emplace_back(text);
    look->types.emplace_back(kDirect);
    return look;
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
    return nullptr;
  }
}

PyObject* ask_python(const Reader& reader, PyObject* const* args, std::size_t count) {
  return PyObject_Vectorcall(reader.slowly, args, count, nullptr);
}

// A look-up that ended otherwise: Python goes on with what was begun.
PyObject* left_to_python(const Reader& reader, PyObject** args, const std::shared_ptr<LookUp>& look,
                         const TierError& error) {
  PyObject* result = nullptr;
  args[4] = request_of(look);
  if (args[4] == nullptr) return nullptr;
  if (is_done([&] { args[5] = error_or_none(error).release().ptr(); })) result = ask_python(reader, args, 6);
  Py_XDECREF(args[4]);
  Py_XDECREF(args[5]);
  return result;
}

}  // namespace

std::string_view storable(PyObject* text) {
  Py_ssize_t size = 0;
  const char* const data = PyUnicode_AsUTF8AndSize(text, &size);
  if (data == nullptr) {
    PyErr_Clear();  // a lone surrogate
    return {};
  }
  const auto bytes = static_cast<std::size_t>(size);
  if (bytes > kMostBytes || std::memchr(data, 0, bytes) != nullptr) return {};
  return {data, bytes};
}

PyObject* land_found(const Reader& reader, PyFlight* flight, const LookUp& look, std::size_t i, const Decoding& how) {
  const Found& found = look.found[i];
  if (!found.found || !found.has_payload || !found.columns.empty() || found.fresh_left <= 0 || !reader.calm ||
      how.decode == nullptr || look.taken || reader.tier->recovery->owes() || flight->state != FlightState::kRunning) {
    return Py_NewRef(missing);
  }
  Envelope e;
  PyObject* payload = nullptr;
  try {
    payload = payload_of(reader, look, i, how.codec, e);
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
  PyObject* const value = payload == nullptr ? nullptr : PyObject_CallOneArg(how.decode, payload);
  Py_XDECREF(payload);
  if (value == nullptr) return nothing_done();
  bool done = false;
  try {
    done = adopted(flight, value, found, e);
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  }
  if (!done) {
    Py_DECREF(value);
    return nullptr;
  }
  wake_tasks(land(flight, FlightState::kRemote, value, nullptr));
  return value;
}

void land_missing(PyFlight* flight) { wake_tasks(land(flight, FlightState::kRemote, missing, nullptr)); }

bool perform(const Reader& reader, const std::shared_ptr<LookUp>& look, std::optional<TierError>& error) {
  return is_done([&] {
    reader.tier->listener->used();
    error = wait_for(*reader.tier->queue, look, reader.tier->echo);
  });
}

PyObject* request_of(const std::shared_ptr<LookUp>& look) {
  PyObject* request = nullptr;
  is_done([&] { request = pybind11::cast(std::static_pointer_cast<Request>(look)).release().ptr(); });
  return request;
}

PyObject* begin_direct(const Reader& reader, PyObject* cache, PyObject* key) {
  CacheBase* const base = as_cache(cache);
  Probe probe;
  if (!text_probe(base, 0, &key, probe)) return nullptr;
  PyObject* const begun = begin(base, probe, true);
  if (begun == nullptr) return nullptr;
  PyObject* const step = PyTuple_GET_ITEM(begun, 0);
  PyObject* const flight = PyTuple_GET_ITEM(begun, 2);
  const bool leads = PyLong_AsLong(step) == PythonStep::kLead;
  PyObject* request = Py_NewRef(Py_None);
  const std::string_view text = leads ? storable(key) : std::string_view();
  if (text.data() != nullptr) {
    Py_DECREF(request);
    const auto look = look_up(text);
    const bool heard = look != nullptr && is_done([&] { reader.tier->listener->used(); });
    request = heard ? request_of(look) : nullptr;
  }
  PyObject* result =
      request == nullptr ? nullptr : Py_BuildValue("OOON", step, PyTuple_GET_ITEM(begun, 1), flight, request);
  if (result == nullptr && leads) land_missing(as_flight(flight));
  Py_DECREF(begun);
  return result;
}

PyObject* read_direct(Reader& reader, PyObject* cache, PyObject* key, PyObject* fallback) {
  PyObject* args[6] = {cache, key, fallback, nullptr, nullptr, nullptr};
  const std::string_view text = reader.calm && reader.decode != nullptr ? storable(key) : std::string_view();
  if (text.data() == nullptr) return ask_python(reader, args, 3);
  CacheBase* const base = as_cache(cache);
  Probe probe;
  if (!text_probe(base, 0, &key, probe)) return nullptr;
  PyObject* const begun = begin(base, probe, true);
  if (begun == nullptr) return nullptr;
  args[3] = begun;
  PyObject* result = nullptr;
  if (PyLong_AsLong(PyTuple_GET_ITEM(begun, 0)) != PythonStep::kLead) {
    result = ask_python(reader, args, 4);
    Py_DECREF(begun);
    return result;
  }
  PyFlight* const flight = as_flight(PyTuple_GET_ITEM(begun, 2));
  const auto look = look_up(text);
  std::optional<TierError> error;
  if (look != nullptr && perform(reader, look, error)) {
    const bool nothing = !*error && !look->found[0].found;
    if (nothing) {
      result = Py_NewRef(fallback);
    } else if (!*error) {
      result = land_found(reader, flight, *look, 0, {reader.decode, reader.codec});
    }
    if (result == missing || *error) {  // not one of ours: Python has the request
      Py_XDECREF(result);
      result = left_to_python(reader, args, look, *error);
    } else if (result != nullptr) {
      ++reader.served;
    }
  }
  land_missing(flight);
  Py_DECREF(begun);
  return result;
}

}  // namespace stillwarm::py
