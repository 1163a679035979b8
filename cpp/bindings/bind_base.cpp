// Durations and sizes for Python.
//
// Thread rule: under the GIL.
// Refuses to know: arguments and their limits; _durations.py names them.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "bindings/bind.hpp"
#include "core/base/duration.hpp"

namespace pb = pybind11;

namespace stillwarm {
namespace {

// As ValueError(what) with the bare reason as an attribute, for _durations.py, which names argument and value itself.
template <auto parse>
std::int64_t parsed(const pb::str& text) {
  Py_ssize_t size = 0;
  const char* utf8 = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
  if (utf8 == nullptr) throw pb::error_already_set();  // a lone surrogate: UnicodeEncodeError is a ValueError too
  try {
    return parse(std::string_view(utf8, static_cast<std::size_t>(size)));
  } catch (const ParseError& e) {
    pb::object error = pb::reinterpret_borrow<pb::object>(PyExc_ValueError)(e.what());
    error.attr("reason") = e.reason();
    PyErr_SetObject(PyExc_ValueError, error.ptr());
    throw pb::error_already_set();
  }
}

}  // namespace

void bind_base(pb::module_& m) {
  m.def("parse_duration", &parsed<&parse_duration>, pb::arg("text"), pb::pos_only(),
        "Nanoseconds of \"300ms\", \"2h30m\", \"1.5s\". Raises ValueError that says what is accepted.");
  m.def("parse_size", &parsed<&parse_size>, pb::arg("text"), pb::pos_only(),
        "Bytes of \"64KB\", \"256MB\", \"1GB\" (of 1024). Raises ValueError that says what is accepted.");
}

}  // namespace stillwarm
