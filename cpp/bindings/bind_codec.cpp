// The envelope of a stored value for Python, and the question whether a value is plain data.
//
// Thread rule: under the GIL, which nothing here releases.
// Refuses to know: codecs. Python makes the payload and reads it; a refused envelope is a number here, never an error.
#include <pybind11/pybind11.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <tuple>

#include "bindings/bind.hpp"
#include "core/codec/dictionaries.hpp"

namespace pb = pybind11;

namespace stillwarm {
namespace {

using Four = std::tuple<Nanos, Nanos, Nanos, Nanos>;

pb::bytes sealed(std::string_view key_space, std::string_view key, const pb::bytes& payload, std::uint8_t codec,
                 bool negative, const Four& durations, std::size_t compress_above) {
  const auto [ttl, stale_while_revalidate, stale_if_error, keep] = durations;
  CompressOptions options;
  options.above = compress_above;
  return seal({codec, negative, ttl, stale_while_revalidate, stale_if_error, keep, key_hash(key_space, key)},
              static_cast<std::string_view>(payload), options);
}

std::tuple<int, int, bool, Four, pb::bytes> opened_envelope(std::string_view key_space, std::string_view key,
                                                            const pb::bytes& stored, std::size_t max_value,
                                                            Dictionaries* dictionaries, const std::string& type) {
  Envelope e;
  std::string payload;
  DecodeLimits limits;
  limits.largest = max_value;
  const std::uint64_t hash = key_hash(key_space, key);
  const auto bytes = static_cast<std::string_view>(stored);
  const Opened status = dictionaries == nullptr ? open(bytes, hash, limits, e, payload)
                                                : dictionaries->open_value(bytes, hash, limits, type, e, payload);
  if (status != Opened::kOk) return {static_cast<int>(status), 0, false, Four{0, 0, 0, 0}, pb::bytes()};
  return {static_cast<int>(status), static_cast<int>(e.codec), e.negative,
          Four{e.ttl, e.stale_while_revalidate, e.stale_if_error, e.keep}, pb::bytes(payload)};
}

// ---- is_plain

constexpr int kDepth = 100;  // beyond it Python looks on, which notices what contains itself
constexpr Py_ssize_t kMost = std::numeric_limits<std::uint32_t>::max();  // what msgpack can count

bool is_plain_int(PyObject* value) {
  int overflow = 0;
  PyLong_AsLongLongAndOverflow(value, &overflow);
  if (overflow <= 0) return overflow == 0;
  PyLong_AsUnsignedLongLong(value);
  if (PyErr_Occurred() == nullptr) return true;
  PyErr_Clear();
  return false;
}

// Without lone surrogates, which UTF-8 has no bytes for.
bool is_plain_str(PyObject* value) {
  const Py_ssize_t size = PyUnicode_GET_LENGTH(value);
  if (size > kMost / 4) return false;
  const int kind = PyUnicode_KIND(value);
  if (kind == PyUnicode_1BYTE_KIND) return true;
  const void* data = PyUnicode_DATA(value);
  for (Py_ssize_t i = 0; i < size; ++i) {
    const Py_UCS4 c = PyUnicode_READ(kind, data, i);
    if (c >= 0xD800 && c <= 0xDFFF) return false;
  }
  return true;
}

// JSON has no bytes, no NaN and no infinities, and one key means a tag there (codecs.py).
constexpr const char* kTypedMark = "$stillwarm";

bool is_plain(PyObject* value, int depth, bool json) {  // recursion of bounded depth
  if (value == Py_None) return true;
  PyTypeObject* type = Py_TYPE(value);
  if (type == &PyUnicode_Type) return is_plain_str(value);
  if (type == &PyLong_Type) return is_plain_int(value);
  if (type == &PyBool_Type) return true;
  if (type == &PyFloat_Type) return !json || std::isfinite(PyFloat_AS_DOUBLE(value));
  if (type == &PyBytes_Type) return !json && PyBytes_GET_SIZE(value) <= kMost;
  if (depth == 0) return false;
  if (type == &PyList_Type) {
    const Py_ssize_t size = PyList_GET_SIZE(value);
    for (Py_ssize_t i = 0; i < size; ++i) {
      if (!is_plain(PyList_GET_ITEM(value, i), depth - 1, json)) return false;
    }
    return size <= kMost;
  }
  if (type != &PyDict_Type) return false;
  Py_ssize_t at = 0;
  PyObject *key = nullptr, *item = nullptr;
  while (PyDict_Next(value, &at, &key, &item)) {
    if (!PyUnicode_CheckExact(key) || !is_plain_str(key) || !is_plain(item, depth - 1, json)) return false;
    if (json && PyUnicode_CompareWithASCIIString(key, kTypedMark) == 0) return false;
  }
  return PyDict_GET_SIZE(value) <= kMost;
}

}  // namespace

void bind_codec(pb::module_& m) {
  m.def("seal", &sealed, pb::arg("namespace"), pb::arg("key"), pb::arg("payload"), pb::arg("codec"),
        pb::arg("negative"), pb::arg("durations"), pb::arg("compress_above"), pb::pos_only(),
        "What a remote tier stores: header, payload, checksum.");
  m.def("open_envelope", &opened_envelope, pb::arg("namespace"), pb::arg("key"), pb::arg("stored"),
        pb::arg("max_value"), pb::arg("dictionaries") = pb::none(), pb::arg("type") = "", pb::pos_only(),
        "(status, codec, negative, durations, payload); with a status above 0 nothing else is told.");
  m.def(
      "is_plain", [](pb::handle value, bool json) { return is_plain(value.ptr(), kDepth, json); }, pb::arg("value"),
      pb::arg("json") = false, pb::pos_only(),
      "True if msgpack (or JSON) keeps the value exactly, types included. Runs no Python code.");
  pb::tuple names(kOpened);
  for (std::size_t i = 0; i < kOpened; ++i) names[i] = pb::str(kOpenedNames[i]);
  m.attr("OPENED") = names;
}

}  // namespace stillwarm
