#include "bindings/flight.hpp"

#include <structmember.h>

#include <new>
#include <utility>

#include "bindings/flight_waiters.hpp"
#include "bindings/weigh.hpp"

namespace stillwarm::py {

PyTypeObject* flight_type = nullptr;
thread_local PyFlight* running = nullptr;

namespace {

// A load that nobody else asks for makes and drops one flight: a few are kept.
constexpr int kMostSpareFlights = 8;
PyFlight* spare_flights[kMostSpareFlights];
int spare_flight_count = 0;

int flight_traverse(PyObject* self, visitproc visit, void* arg) {
  PyFlight* f = as_flight(self);
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(f->cache);
  Py_VISIT(f->key);
  Py_VISIT(f->value);
  Py_VISIT(f->error);
  Py_VISIT(f->tasks);
  Py_VISIT(f->sleepers);
  Py_VISIT(f->load);
  Py_VISIT(f->loop);
  return 0;
}

int flight_clear(PyObject* self) {
  PyFlight* f = as_flight(self);
  // The table borrows key and flight: out of it first.
  if (f->cache != nullptr && as_cache(f->cache)->flow != nullptr) as_cache(f->cache)->flow->finish(f->flight);
  Py_CLEAR(f->value);
  Py_CLEAR(f->error);
  Py_CLEAR(f->tasks);
  Py_CLEAR(f->sleepers);
  Py_CLEAR(f->load);
  Py_CLEAR(f->loop);
  return 0;
}

void flight_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  PyFlight* f = as_flight(self);
  flight_clear(self);
  while (!f->flight.followers_loads.empty()) {
    PyFlight* load = owner_of(f->flight.followers_loads.back());
    f->flight.followers_loads.pop_back();
    Py_DECREF(load);
  }
  f->flight.~Flight();
  Py_CLEAR(f->key);
  Py_CLEAR(f->cache);
  if (spare_flight_count < kMostSpareFlights) {
    spare_flights[spare_flight_count++] = f;
    return;
  }
  PyTypeObject* type = Py_TYPE(self);
  PyObject_GC_Del(self);
  Py_DECREF(type);
}

PyObject* member_or_none(PyObject* o) { return Py_NewRef(o == nullptr ? Py_None : o); }

PyObject* get_state(PyObject* self, void*) { return PyLong_FromLong(static_cast<long>(as_flight(self)->state)); }
PyObject* get_attached(PyObject* self, void*) { return PyBool_FromLong(as_flight(self)->flight.attached); }
PyObject* get_background(PyObject* self, void*) { return PyBool_FromLong(as_flight(self)->flight.background); }
int set_background(PyObject* self, PyObject* value, void*) {
  const int truth = value == nullptr ? 0 : PyObject_IsTrue(value);
  if (truth >= 0) as_flight(self)->flight.background = truth != 0;
  return truth < 0 ? -1 : 0;
}
PyObject* get_sequence(PyObject* self, void*) { return PyLong_FromUnsignedLongLong(as_flight(self)->flight.sequence); }
PyObject* get_scope(PyObject* self, void*) { return PyLong_FromUnsignedLong(as_flight(self)->flight.scope); }
PyObject* get_value(PyObject* self, void*) { return member_or_none(as_flight(self)->value); }
PyObject* get_error(PyObject* self, void*) { return member_or_none(as_flight(self)->error); }
PyObject* get_key(PyObject* self, void*) { return member_or_none(as_flight(self)->key); }
PyObject* get_load(PyObject* self, void*) { return member_or_none(as_flight(self)->load); }
PyObject* get_loop(PyObject* self, void*) { return member_or_none(as_flight(self)->loop); }
PyObject* get_cache(PyObject* self, void*) { return member_or_none(as_flight(self)->cache); }
PyObject* get_thread(PyObject* self, void*) { return PyLong_FromUnsignedLong(as_flight(self)->thread); }
int set_thread(PyObject* self, PyObject* value, void*) {
  as_flight(self)->thread = value == nullptr ? 0 : PyLong_AsUnsignedLong(value);
  return PyErr_Occurred() == nullptr ? 0 : -1;
}
int set_load(PyObject* self, PyObject* value, void*) {
  Py_XINCREF(value);
  Py_XSETREF(as_flight(self)->load, value);
  return 0;
}
int set_loop(PyObject* self, PyObject* value, void*) {
  Py_XINCREF(value);
  Py_XSETREF(as_flight(self)->loop, value);
  return 0;
}

// offer(anew): somebody else may begin the load. Until `let_go` this thread has to.
PyObject* flight_offer(PyObject* self, PyObject* anew) {
  as_flight(self)->offer = anew == Py_True ? Offer::kAnew : Offer::kPlain;
  Py_RETURN_NONE;
}

// take(): this thread begins the load: whether anew. None if it is not offered, or somebody was faster.
PyObject* flight_take(PyObject* self, PyObject*) {
  PyFlight* f = as_flight(self);
  const Offer offer = std::exchange(f->offer, Offer::kNone);
  if (offer == Offer::kNone || f->state != FlightState::kRunning) Py_RETURN_NONE;
  f->thread = PyThread_get_thread_ident();
  return PyBool_FromLong(offer == Offer::kAnew);
}

// let_go(): this thread will not begin it, and may wait for it.
PyObject* flight_let_go(PyObject* self, PyObject*) {
  PyFlight* f = as_flight(self);
  if (f->thread == PyThread_get_thread_ident()) f->thread = 0;
  Py_RETURN_NONE;
}

PyGetSetDef flight_getset[] = {
    {"state", get_state, nullptr, "0 running, 1 value, 2 error, 3 abandoned, 4 stale, 5 remote.", nullptr},
    {"attached", get_attached, nullptr, "May still be joined and stored.", nullptr},
    {"background", get_background, set_background, "A refresh that no caller waits for.", nullptr},
    {"sequence", get_sequence, nullptr, "Order of starting.", nullptr},
    {"scope", get_scope, nullptr, "Number of the scope.", nullptr},
    {"value", get_value, nullptr, "What was loaded.", nullptr},
    {"error", get_error, nullptr, "What the load raised.", nullptr},
    {"key", get_key, nullptr, "The stored form of the key.", nullptr},
    {"load", get_load, set_load, "The Load that current_load() made.", nullptr},
    {"loop", get_loop, set_loop, "The event loop of the load.", nullptr},
    {"cache", get_cache, nullptr, "The cache.", nullptr},
    {"thread", get_thread, set_thread, "Ident of the thread that has to run the load, or runs it; 0: none has to.",
     nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyMethodDef flight_methods[] = {
    {"wait_with", flight_wait_with, METH_O, "Registers a task that waits; False when the flight is over."},
    {"sleep_with", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(flight_sleep_with)), METH_FASTCALL,
     "Registers the lock of a thread that waits; False when the flight is over."},
    {"offer", flight_offer, METH_O, "Somebody else may begin the load."},
    {"take", flight_take, METH_NOARGS, "This thread begins the load: whether anew. None: somebody was faster."},
    {"let_go", flight_let_go, METH_NOARGS, "This thread will not begin the load."},
    {"left", flight_left, METH_O, "The thread with this lock waits no longer."},
    {nullptr, nullptr, 0, nullptr}};

PyType_Slot flight_slots[] = {{Py_tp_getset, flight_getset},
                              {Py_tp_methods, flight_methods},
                              {Py_tp_traverse, reinterpret_cast<void*>(flight_traverse)},
                              {Py_tp_clear, reinterpret_cast<void*>(flight_clear)},
                              {Py_tp_dealloc, reinterpret_cast<void*>(flight_dealloc)},
                              {Py_tp_doc, const_cast<char*>("One running load.")},
                              {0, nullptr}};

PyType_Spec flight_spec = {"stillwarm._core.Flight", sizeof(PyFlight), 0,
                           Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION, flight_slots};

bool spreads(const Durations& d) { return d.jitter > 0 || d.early == kEarlyAuto; }

bool store(PyFlight* f, PyObject* value, const Result& result, Stored& stored, Nanos now) {
  PyFlow* flow = as_cache(f->cache)->flow;
  bool took_key = false;
  Outcome outcome;
  Py_INCREF(value);
  Py_INCREF(f->key);
  bool ok = true;
  try {
    outcome = flow->commit(f->flight, probe_of(f), result, took_key, now);
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
    ok = false;
  }
  if (ok && outcome.stored == Stored::kNotKept && PyErr_Occurred()) ok = false;  // a comparison raised
  stored = outcome.stored;
  if (!took_key) Py_DECREF(f->key);
  if (outcome.stored != Stored::kStored) Py_DECREF(value);
  if (outcome.released != nullptr) Py_DECREF(static_cast<PyObject*>(outcome.released));
  release_dead(flow);
  return ok;
}

}  // namespace

bool add_flight(PyObject* module) {
  if (!add_waiters()) return false;
  flight_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&flight_spec));
  return flight_type != nullptr &&
         PyModule_AddObjectRef(module, "Flight", reinterpret_cast<PyObject*>(flight_type)) == 0;
}

PyFlight* new_flight(CacheBase* cache, PyObject* key, std::uint64_t hash, ScopeId scope) {
  PyFlight* f = nullptr;
  if (spare_flight_count > 0) {
    f = spare_flights[--spare_flight_count];
    _Py_NewReference(reinterpret_cast<PyObject*>(f));
  } else {
    // Not PyObject_GC_New: up to Python 3.11 that may run the collector, and so any code, between a look-up and its
    // lead.
    const int was_enabled = PyGC_Disable();
    f = PyObject_GC_New(PyFlight, flight_type);
    if (was_enabled != 0) PyGC_Enable();
    if (f == nullptr) {
      Py_DECREF(key);
      return nullptr;
    }
  }
  new (&f->flight) Flight();
  f->flight.key = key;
  f->flight.hash = hash;
  f->flight.scope = scope;
  f->cache = Py_NewRef(reinterpret_cast<PyObject*>(cache));
  f->key = key;
  f->value = f->error = f->tasks = f->sleepers = f->load = f->loop = nullptr;
  f->state = FlightState::kRunning;
  f->thread = 0;
  f->offer = Offer::kNone;
  return f;
}

void track(PyFlight* f) {
  if (!PyObject_GC_IsTracked(reinterpret_cast<PyObject*>(f))) PyObject_GC_Track(f);
}

Probe probe_of(const PyFlight* f) {
  PyFlow* flow = as_cache(f->cache)->flow;
  const Scope& scope = flow->scopes()[f->flight.scope];
  const bool row = !scope.single && PyTuple_CheckExact(f->key);
  Probe probe;
  probe.hash = f->flight.hash;
  probe.scope = f->flight.scope;
  probe.shared = scope.key_scope == scope.id && !scope.shares ? nullptr : &flow->scopes();
  probe.items = row ? reinterpret_cast<PyTupleObject*>(f->key)->ob_item : &f->key;
  probe.count = row ? PyTuple_GET_SIZE(f->key) : 1;
  return probe;
}

bool commit(PyFlight* f, PyObject* value, const Keep& keep, Stored& stored) {
  Result result;
  result.value = value;
  result.weight = keep.weight;
  result.durations = keep.durations;
  result.own_durations = keep.own_durations;
  result.tags = keep.tags;
  result.negative = keep.negative;
  result.adopted = keep.adopted;
  result.answered = keep.answered;
  result.fresh_left = keep.fresh_left;
  if (spreads(keep.durations)) result.random = next_random(as_cache(f->cache));
  return store(f, value, result, stored, Clock::now());
}

bool commit_plain(PyFlight* f, PyObject* value, Stored& stored, Nanos now) {
  PyFlow* flow = as_cache(f->cache)->flow;
  Result result;
  result.value = value;
  result.weight = weigh(value) + weigh(f->key) + kEntryOverhead;
  result.durations = flow->scopes()[f->flight.scope].durations;
  if (spreads(result.durations)) result.random = next_random(as_cache(f->cache));
  return store(f, value, result, stored, now);
}

bool adopt(PyFlight* f, PyObject* value, const std::array<Nanos, 4>& durations, Nanos fresh_left, Keep& keep,
           Stored& stored) {
  const Durations& own = as_cache(f->cache)->flow->scopes()[f->flight.scope].durations;
  keep.durations = own;
  keep.durations.ttl = keep.durations.negative_ttl = durations[0];
  keep.durations.stale_while_revalidate = durations[1];
  keep.durations.stale_if_error = durations[2];
  keep.durations.keep = durations[3];
  keep.own_durations = own.ttl != durations[0] || own.stale_while_revalidate != durations[1] ||
                       own.stale_if_error != durations[2] || own.keep != durations[3] || own.early > 0;
  keep.adopted = true;
  keep.fresh_left = fresh_left;
  keep.weight += weigh(f->key) + kEntryOverhead;
  return commit(f, value, keep, stored);
}

bool count_remote_hit(PyFlight* f, bool stale, bool& kept) {
  PyFlow* flow = as_cache(f->cache)->flow;
  Stats& stats = flow->scopes()[f->flight.scope].stats;
  ++(stale ? stats.stale_hits : stats.hits);
  ++stats.remote_hits;
  if (stats.misses > 0) --stats.misses;
  const Index i = flow->memory().find(probe_of(f));
  if (i == kFindError) return false;
  kept = i != kNone;
  if (kept) flow->count_hit(i);
  return true;
}

PyObject* land(PyFlight* f, FlightState state, PyObject* value, PyObject* error) {
  if (f->state != FlightState::kRunning) return nullptr;
  as_cache(f->cache)->flow->finish(f->flight);
  f->state = state;
  Py_XINCREF(value);
  Py_XINCREF(error);
  f->value = value;
  f->error = error;
  f->flight.parent = nullptr;
  PyObject* tasks = f->tasks;
  f->tasks = nullptr;
  if (f->sleepers != nullptr) {  // the leader may have an exception on its way: waking calls Python
    PyObject *type = nullptr, *raised = nullptr, *traceback = nullptr;
    PyErr_Fetch(&type, &raised, &traceback);
    wake_first(f);
    PyErr_Restore(type, raised, traceback);
  }
  return tasks;
}

bool add_follower(PyFlight* f, PyFlight* load) {
  if (depends_on_itself(load->flight, f->flight)) return false;
  f->flight.followers_loads.push_back(&load->flight);
  Py_INCREF(load);  // until remove_follower, which Ctrl-C may keep from coming, or the flight's end
  return true;
}

void remove_follower(PyFlight* f, PyFlight* load) {
  auto& loads = f->flight.followers_loads;
  const auto it = std::find(loads.begin(), loads.end(), &load->flight);
  if (it == loads.end()) return;
  loads.erase(it);
  Py_DECREF(load);
}

}  // namespace stillwarm::py
