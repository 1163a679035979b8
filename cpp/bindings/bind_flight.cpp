// What _load.py and _aload.py do with a flight.
//
// Thread rule: with the GIL.
// Refuses to know: who waits, and how.
#include <pybind11/stl.h>

#include <array>
#include <utility>

#include "bindings/bind.hpp"
#include "bindings/cached_call.hpp"
#include "bindings/weigh.hpp"

namespace stillwarm {

py::PyFlight* py::flight_of(pybind11::handle o) {
  if (Py_TYPE(o.ptr()) != flight_type) throw pybind11::type_error("expected a Flight");
  return as_flight(o.ptr());
}

namespace {

namespace pb = pybind11;
using py::as_cache;
using py::flight_of;
using py::PyFlight;

py::PyFlow* flow_of(PyFlight* f) { return as_cache(f->cache)->flow; }

pb::object object_or_none(PyObject* o) { return pb::reinterpret_borrow<pb::object>(o == nullptr ? Py_None : o); }

// As `commit` for what a remote tier has: `fresh_left` of its ttl is left. durations: (ttl, swr, sie, keep).
int adopt(pb::handle flight, pb::handle value, const std::array<Nanos, 4>& durations, Nanos fresh_left,
          const std::vector<std::uint64_t>& tags, std::int64_t weight, bool negative) {
  py::Keep keep;
  keep.tags = tags;
  keep.negative = negative;
  keep.weight = static_cast<std::uint64_t>(weight);
  Stored stored = Stored::kNotKept;
  if (!py::adopt(flight_of(flight), value.ptr(), durations, fresh_left, keep, stored)) throw pb::error_already_set();
  return static_cast<int>(stored);
}

// durations: None for those of the scope, or (ttl, swr, sie, keep), or these with (early, jitter). Returns 0 stored, 1
// lost, 2 too large, 3 not kept.
int commit(pb::handle flight, pb::handle value, pb::handle durations, const std::vector<std::uint64_t>& tags,
           std::int64_t weight, bool negative, bool answered) {
  PyFlight* f = flight_of(flight);
  py::Keep keep;
  keep.answered = answered;
  keep.durations = flow_of(f)->scopes()[f->flight.scope].durations;
  if (!durations.is_none()) {
    const auto own = durations.cast<pb::tuple>();
    keep.durations.ttl = keep.durations.negative_ttl = own[0].cast<Nanos>();
    keep.durations.stale_while_revalidate = own[1].cast<Nanos>();
    keep.durations.stale_if_error = own[2].cast<Nanos>();
    keep.durations.keep = own[3].cast<Nanos>();
    if (own.size() > 4) {
      keep.durations.early = own[4].cast<double>();
      keep.durations.jitter = own[5].cast<double>();
    }
    keep.own_durations = true;
  }
  keep.tags = tags;
  keep.negative = negative;
  keep.weight = static_cast<std::uint64_t>(weight >= 0 ? weight : static_cast<std::int64_t>(py::weigh(value.ptr()))) +
                py::weigh(f->key) + py::kEntryOverhead;
  Stored stored = Stored::kNotKept;
  if (!py::commit(f, value.ptr(), keep, stored)) throw pb::error_already_set();
  return static_cast<int>(stored);
}

// state: 1 value, 2 error, 3 abandoned, 4 stale, 5 remote. The tasks to wake, or None.
pb::object land(pb::handle flight, int state, pb::handle outcome) {
  PyFlight* f = flight_of(flight);
  const auto s = static_cast<py::FlightState>(state);
  const bool value = s == py::FlightState::kValue || s == py::FlightState::kStale || s == py::FlightState::kRemote;
  PyObject* tasks =
      py::land(f, s, value ? outcome.ptr() : nullptr, s == py::FlightState::kError ? outcome.ptr() : nullptr);
  return tasks == nullptr ? pb::object(pb::none()) : pb::reinterpret_steal<pb::object>(tasks);
}

// kind: 0 fatal, 1 not found, 2 transient. (value that may be served or MISSING, whether an absence is to be
// remembered)
pb::tuple fail(pb::handle flight, int kind) {
  PyFlight* f = flight_of(flight);
  py::PyFlow* flow = flow_of(f);
  const Failure failure = flow->fail(f->flight, py::probe_of(f), static_cast<ErrorKind>(kind),
                                     py::next_random(as_cache(f->cache)), Clock::now());
  if (PyErr_Occurred() != nullptr) throw pb::error_already_set();
  PyObject* value = failure.entry == kNone ? py::missing : static_cast<PyObject*>(flow->memory()[failure.entry].value);
  Py_INCREF(value);
  py::release_dead(flow);  // nothing here owns a reference by a destructor: see Releasing in bind_cache.cpp
  return pb::make_tuple(pb::reinterpret_steal<pb::object>(value), failure.absent);
}

// What the load may revive, or MISSING.
pb::object kept(pb::handle flight) {
  PyFlight* f = flight_of(flight);
  py::PyFlow* flow = flow_of(f);
  const Index i = flow->revivable(py::probe_of(f), Clock::now());
  if (i == kFindError) throw pb::error_already_set();
  PyObject* value = Py_NewRef(i == kNone ? py::missing : static_cast<PyObject*>(flow->memory()[i].value));
  py::release_dead(flow);
  return pb::reinterpret_steal<pb::object>(value);
}

}  // namespace

void bind_flight(pb::module_& m) {
  m.def("commit", commit, pb::arg("flight"), pb::arg("value"), pb::arg("durations"), pb::arg("tags"), pb::arg("weight"),
        pb::arg("negative"), pb::arg("answered") = false);
  m.def("adopt", adopt);
  m.def("land", land);
  m.def("fail", fail);
  m.def("kept", kept);
  m.def("enter", [](pb::handle flight) {
    PyFlight* f = flight.is_none() ? nullptr : flight_of(flight);
    if (f != nullptr) {
      Py_INCREF(f);
      f->thread = PyThread_get_thread_ident();
    }
    PyFlight* outer = std::exchange(py::running, f);
    if (outer == nullptr) return pb::object(pb::none());
    py::track(outer);
    return pb::reinterpret_steal<pb::object>(reinterpret_cast<PyObject*>(outer));
  });
  m.def("leave", [](pb::handle flight, pb::handle outer) {
    PyFlight* f = flight_of(flight);
    PyFlight* o = outer.is_none() ? nullptr : flight_of(outer);
    f->flight.parent = nullptr;
    Py_XINCREF(o);
    Py_XDECREF(std::exchange(py::running, o));
  });
  m.def("running", [] {
    if (py::running != nullptr) py::track(py::running);
    return object_or_none(reinterpret_cast<PyObject*>(py::running));
  });
  m.def("set_parent", [](pb::handle flight, pb::handle parent) {
    flight_of(flight)->flight.parent = parent.is_none() ? nullptr : &flight_of(parent)->flight;
  });
  m.def("depends_on_itself", [](pb::handle load, pb::handle target) {
    return depends_on_itself(flight_of(load)->flight, flight_of(target)->flight);
  });
  m.def("add_follower",
        [](pb::handle flight, pb::handle load) { return py::add_follower(flight_of(flight), flight_of(load)); });
  m.def("remove_follower",
        [](pb::handle flight, pb::handle load) { py::remove_follower(flight_of(flight), flight_of(load)); });
  m.def("count_load", [](pb::handle flight, Nanos took, bool failed) {
    PyFlight* f = flight_of(flight);
    Stats& stats = flow_of(f)->scopes()[f->flight.scope].stats;
    ++stats.loads;
    stats.load_time += took;
    if (failed) ++stats.load_errors;
  });
  m.def("count_remote_hit", [](pb::handle flight, bool stale) {
    bool kept = false;
    if (!py::count_remote_hit(flight_of(flight), stale, kept)) throw pb::error_already_set();
    return kept;
  });
  // A loaded value was refused by the remote tier's fence.
  m.def("count_lost_fill", [](pb::handle flight) {
    PyFlight* f = flight_of(flight);
    ++flow_of(f)->scopes()[f->flight.scope].stats.lost_fills;
  });
  // A call that was counted as a miss got a stale value after all.
  m.def("count_stale", [](pb::handle flight) {
    PyFlight* f = flight_of(flight);
    Stats& stats = flow_of(f)->scopes()[f->flight.scope].stats;
    ++stats.stale_hits;
    if (stats.misses > 0) --stats.misses;
  });
  m.def("count_skipped_refresh", [](pb::handle flight) {
    PyFlight* f = flight_of(flight);
    ++flow_of(f)->scopes()[f->flight.scope].stats.skipped_refreshes;
  });
  m.def("set_hooks", [](pb::handle perform, pb::handle aperform, pb::handle failed, pb::handle commit_loaded,
                        pb::handle wake, pb::handle raise_it, pb::handle drain, pb::handle count_elsewhere) {
    py::hooks = {Py_NewRef(perform.ptr()),       Py_NewRef(aperform.ptr()),       Py_NewRef(failed.ptr()),
                 Py_NewRef(commit_loaded.ptr()), Py_NewRef(wake.ptr()),           Py_NewRef(raise_it.ptr()),
                 Py_NewRef(drain.ptr()),         Py_NewRef(count_elsewhere.ptr())};
  });
}

}  // namespace stillwarm
