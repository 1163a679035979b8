// The extension module stillwarm._core: a table of contents.
//
//   the hot path, raw CPython types           cached_call, cache_base, ready, flight, retried_call, retried_await
//   arguments -> key, keys in the tables      call_key, py_traits
//   bytes of a value                          weigh
//   a request -> its answer                   http_facts, http_front
//   a request to a remote tier, and its wait  remote_request, bind_remote, bind_postgres, bind_redis
//   everything else, pybind11                 bind_cache, bind_flight, bind_base, bind_retry, bind_breaker,
//                                             bind_http, bind_codec, bind_codec_dictionaries, bind_antidup,
//                                             bind_idempotency
//
// Thread rule: everything here runs with the GIL; only the waits of remote_request and a study of dictionaries
// release it.
#include "bindings/bind.hpp"
#include "bindings/cache_base.hpp"
#include "bindings/cached_call.hpp"
#include "bindings/flight.hpp"
#include "bindings/ready.hpp"
#include "bindings/retried_call.hpp"

PYBIND11_MODULE(_core, m) {
  using namespace stillwarm;
  // Types, free lists and hooks are the process's, and a second interpreter would take them over from the first.
  if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
    throw pybind11::import_error("stillwarm works in the main interpreter only, not in a sub-interpreter");
  }
  py::missing = PyObject_CallNoArgs(reinterpret_cast<PyObject*>(&PyBaseObject_Type));
  if (py::missing == nullptr || !py::add_ready(m.ptr()) || !py::add_cache_base(m.ptr()) || !py::add_flight(m.ptr()) ||
      !py::add_cached_call(m.ptr()) || !py::add_retried_call(m.ptr())) {
    throw pybind11::error_already_set();
  }
  bind_base(m);
  bind_retry(m);
  bind_breaker(m);
  bind_cache(m);
  bind_flight(m);
  bind_http(m);
  bind_antidup(m);
  bind_idempotency(m);
#ifdef STILLWARM_REMOTE
  bind_dictionaries(m);
  bind_remote(m);
  bind_reader(m);
  bind_codec(m);
#endif
#ifdef STILLWARM_POSTGRES
  bind_postgres(m);
#endif
#ifdef STILLWARM_REDIS
  bind_redis(m);
#endif
}
