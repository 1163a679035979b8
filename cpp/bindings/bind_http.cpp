// The HTTP policy and its front for Python.
//
// Thread rule: with the GIL.
// Refuses to know: frameworks, how the app is called. Durations are ns.
#include <pybind11/stl.h>

#include "bindings/bind.hpp"
#include "bindings/http_front.hpp"
#include "core/http/fields.hpp"

namespace stillwarm {
namespace {

namespace pb = pybind11;
using py::Front;
using py::Question;

std::unique_ptr<Front> make_front(pb::handle cache, ScopeId scope, const std::string& prefix, bool asgi,
                                  const std::vector<std::string>& ignored_cookies, std::size_t max_key,
                                  const std::string& debug_token, Nanos ttl, Nanos swr, Nanos sie, Nanos absent_ttl,
                                  bool ttl_wins, bool obeys_request, bool per_user, bool declares_cookies,
                                  bool heuristic, pb::handle stored, pb::handle variants, pb::handle digest) {
  if (!PyObject_TypeCheck(cache.ptr(), py::cache_base_type)) throw pb::type_error("expected a Cache");
  if (py::flow_of(py::as_cache(cache.ptr())) == nullptr) throw pb::error_already_set();
  http::Route route;
  route.ttl = ttl;
  route.stale_while_revalidate = swr;
  route.stale_if_error = sie;
  route.absent_ttl = absent_ttl;
  route.ttl_wins = ttl_wins;
  route.obeys_request = obeys_request;
  route.per_user = per_user;
  route.declares_cookies = declares_cookies;
  route.heuristic = heuristic;
  return std::make_unique<Front>(py::as_cache(cache.ptr()), scope,
                                 py::FrontOptions{prefix, ignored_cookies, max_key, asgi}, route,
                                 reinterpret_cast<PyTypeObject*>(stored.ptr()),
                                 reinterpret_cast<PyTypeObject*>(variants.ptr()), digest.ptr(), debug_token);
}

http::Status status_of(bool hit, http::Forward forward, int forward_status, bool stored, bool collapsed, bool has_ttl,
                       http::Seconds ttl, std::string_view detail) {
  http::Status s;
  s.hit = hit;
  s.forward = forward;
  s.forward_status = forward_status;
  s.stored = stored;
  s.collapsed = collapsed;
  s.has_ttl = has_ttl;
  s.ttl = ttl;
  s.detail = detail;
  return s;
}

pb::dict after(const Front& front, const Question& question, int status, pb::handle headers) {
  std::string vary;
  const http::After a = front.after(question, status, headers, &vary);
  pb::dict out;
  out["store"] = a.store;
  out["shareable"] = a.shareable;
  out["shared_with_authorization"] = a.shared_with_authorization;
  out["transient_error"] = a.transient_error;
  out["why"] = http::text_of(a.why);
  out["durations"] = pb::make_tuple(a.ttl, a.stale_while_revalidate, a.stale_if_error);
  out["age"] = a.age;
  const auto names = http::parse_vary(vary);
  out["vary"] = names ? pb::object(pb::tuple(pb::cast(*names))) : pb::object(pb::none());
  return out;
}

std::optional<std::string_view> text_or_none(PyObject* o) {
  if (o == Py_None) return std::nullopt;
  Py_ssize_t size = 0;
  const char* text = PyUnicode_AsUTF8AndSize(o, &size);
  if (text == nullptr) throw pb::error_already_set();
  return std::string_view(text, static_cast<std::size_t>(size));
}

// HttpFront.look(raw, own_key=None, part=None, may_answer=True). A plain method: pybind11's way of finding and
// converting arguments takes as long as the look-up. The descriptor has checked what `self` is.
PyObject* front_look(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  try {
    if (count < 1 || count > 4) throw pb::type_error("look() takes 1 to 4 arguments");
    auto* front = reinterpret_cast<pb::detail::instance*>(self)->get_value_and_holder().value_ptr<Front>();
    if (front == nullptr) throw pb::type_error("HttpFront.__init__() was not called");
    const auto own_key = count > 1 ? text_or_none(args[1]) : std::nullopt;
    const auto part = count > 2 ? text_or_none(args[2]) : std::nullopt;
    return front->look(args[0], own_key, part, count < 4 || args[3] == Py_True).release().ptr();
  } catch (pb::error_already_set& error) {
    error.restore();
  } catch (const pb::builtin_exception& error) {
    error.set_error();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

PyMethodDef look_method = {"look", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(front_look)), METH_FASTCALL,
                           "look($self, raw, own_key=None, part=None, may_answer=True, /)\n--\n\n"
                           "The finished answer as a tuple, or an HttpQuestion."};

}  // namespace

void bind_http(pb::module_& m) {
  pb::enum_<http::Forward>(m, "Forward")
      .value("NONE", http::Forward::kNone)
      .value("BYPASS", http::Forward::kBypass)
      .value("METHOD", http::Forward::kMethod)
      .value("URI_MISS", http::Forward::kUriMiss)
      .value("VARY_MISS", http::Forward::kVaryMiss)
      .value("MISS", http::Forward::kMiss)
      .value("REQUEST", http::Forward::kRequest)
      .value("STALE", http::Forward::kStale)
      .value("PARTIAL", http::Forward::kPartial);

  pb::class_<Question>(m, "HttpQuestion", "What a request asks, and what the policy says of it.")
      .def_property_readonly("look", [](const Question& q) { return q.before.look; })
      .def_property_readonly("store", [](const Question& q) { return q.before.store; })
      .def_property_readonly("head", [](const Question& q) { return q.before.head; })
      .def_property_readonly("invalidates", [](const Question& q) { return q.before.invalidates; })
      .def_property_readonly("reload", [](const Question& q) { return q.before.reload; })
      .def_property_readonly("only_if_cached", [](const Question& q) { return q.before.only_if_cached; })
      .def_property_readonly("authorization", [](const Question& q) { return q.before.authorization; })
      .def_property_readonly("why", [](const Question& q) { return http::text_of(q.before.why); })
      .def_property_readonly("forward", [](const Question& q) { return q.before.forward; })
      .def_readonly("primary", &Question::primary)
      .def_readwrite("key", &Question::key)
      .def_readwrite("variant", &Question::variant);

  pb::class_<Front> http_front(m, "HttpFront", "Answers requests of one route or app from the store.");
  PyObject* look = PyDescr_NewMethod(reinterpret_cast<PyTypeObject*>(http_front.ptr()), &look_method);
  if (look == nullptr) throw pb::error_already_set();
  http_front.attr("look") = pb::reinterpret_steal<pb::object>(look);
  http_front
      .def(pb::init(&make_front), pb::keep_alive<1, 2>(), pb::keep_alive<1, 18>(), pb::keep_alive<1, 19>(),
           pb::arg("cache"), pb::arg("scope"), pb::kw_only(), pb::arg("prefix"), pb::arg("asgi"),
           pb::arg("ignored_cookies"), pb::arg("max_key"), pb::arg("debug_token"), pb::arg("ttl"),
           pb::arg("stale_while_revalidate"), pb::arg("stale_if_error"), pb::arg("absent_ttl"), pb::arg("ttl_wins"),
           pb::arg("obeys_request"), pb::arg("per_user"), pb::arg("declares_cookies"), pb::arg("heuristic"),
           pb::arg("stored"), pb::arg("variants"), pb::arg("digest"))
      .def(
          "render",
          [](const Front& front, const Question& question, pb::handle stored, Nanos fresh_left, std::string_view label,
             bool hit, http::Forward forward, bool is_stored, bool collapsed) {
            return front.render(question, stored, fresh_left, label,
                                status_of(hit, forward, 0, is_stored, collapsed, false, 0, {}));
          },
          pb::arg("question"), pb::arg("stored"), pb::arg("fresh_left"), pb::arg("label"), pb::arg("hit"),
          pb::arg("forward"), pb::arg("is_stored"), pb::arg("collapsed"), pb::pos_only())
      .def(
          "marks",
          [](const Front& front, const Question& question, std::string_view label, http::Forward forward,
             bool is_stored, std::string_view detail) {
            return front.marks(question, label, status_of(false, forward, 0, is_stored, false, false, 0, detail));
          },
          pb::arg("question"), pb::arg("label"), pb::arg("forward"), pb::arg("is_stored"), pb::arg("detail"),
          pb::pos_only())
      .def("after", &after, pb::arg("question"), pb::arg("status"), pb::arg("headers"), pb::pos_only())
      .def(
          "may_use",
          [](const Front& front, const Question& question, pb::handle stored, Nanos fresh_left) {
            return static_cast<int>(front.use(question, stored, fresh_left));
          },
          pb::pos_only(), pb::arg("question"), pb::arg("stored"), pb::arg("fresh_left"), "0 serve, 1 reload, 2 pass.")
      .def(
          "match",
          [](const Front& front, const Question& question, pb::handle value) -> pb::object {
            PyObject* stored = front.match(question, value.ptr());
            return pb::reinterpret_borrow<pb::object>(stored == nullptr ? Py_None : stored);
          },
          pb::arg("question"), pb::arg("value"), pb::pos_only())
      .def("variant_text", &Front::variant_text, pb::arg("raw"), pb::arg("names"), pb::pos_only())
      .def_property_readonly("hits", &Front::hits);

  m.def("is_stored_field", &http::is_stored_field, pb::arg("name"), pb::pos_only());
  m.def("is_kept_on_304", &http::is_kept_on_304, pb::arg("name"), pb::pos_only());
}

}  // namespace stillwarm
