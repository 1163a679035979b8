// The call of a cached function: look up, and what a plain load needs. See cached_call.hpp.
#include "bindings/cached_call.hpp"

#include "bindings/ready.hpp"

namespace stillwarm::py {

Hooks hooks{};
PyObject* missing = nullptr;

void wake(PyObject* waiters) {
  if (waiters == nullptr) return;
  PyObject* done = PyObject_CallOneArg(hooks.wake, waiters);
  if (done == nullptr) PyErr_WriteUnraisable(hooks.wake);
  Py_XDECREF(done);
  Py_DECREF(waiters);
}

namespace {

PyObject* give(const CachedCall* c, PyObject* value) {
  Py_INCREF(value);
  return c->is_async ? make_ready(value) : value;
}

// The Python side takes the call over from the start.
PyObject* hand_over(CachedCall* c, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames) {
  const Py_ssize_t keywords = kwnames == nullptr ? 0 : PyTuple_GET_SIZE(kwnames);
  PyObject* tuple = PyTuple_New(nargs);
  PyObject* dict = PyDict_New();
  PyObject* result = nullptr;
  if (tuple != nullptr && dict != nullptr) {
    for (Py_ssize_t i = 0; i < nargs; ++i) PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
    bool ok = true;
    for (Py_ssize_t k = 0; ok && k < keywords; ++k) {
      ok = PyDict_SetItem(dict, PyTuple_GET_ITEM(kwnames, k), args[nargs + k]) == 0;
    }
    if (ok) {
      PyObject* to[] = {nullptr, reinterpret_cast<PyObject*>(c), tuple, dict};
      result = PyObject_Vectorcall(c->is_async ? hooks.aperform : hooks.perform, to + 1,
                                   3 | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr);
    }
  }
  Py_XDECREF(tuple);
  Py_XDECREF(dict);
  return result;
}

// Lands a flight that nobody else will land, so that no follower waits for ever. Keeps the exception that is set.
void abandon(PyFlight* f) {
  if (f->state != FlightState::kRunning) return;
  PyObject *type = nullptr, *error = nullptr, *traceback = nullptr;
  PyErr_Fetch(&type, &error, &traceback);
  wake(land(f, FlightState::kAbandoned, nullptr, nullptr));
  PyErr_Restore(type, error, traceback);
}

// The load raised. The Python side judges the error; a stale value may come back in its place.
PyObject* load_failed(CachedCall* c, PyFlight* f) {
  ++c->stats->load_errors;
  PyObject *type = nullptr, *error = nullptr, *traceback = nullptr;
  PyErr_Fetch(&type, &error, &traceback);
  PyErr_NormalizeException(&type, &error, &traceback);
  track(f);
  if (traceback != nullptr) PyException_SetTraceback(error, traceback);
  PyObject* to[] = {nullptr, reinterpret_cast<PyObject*>(c), reinterpret_cast<PyObject*>(f), error};
  PyObject* value = PyObject_Vectorcall(hooks.failed, to + 1, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr);
  if (value == hooks.raise_it) {
    Py_DECREF(value);
    value = nullptr;
    PyErr_Restore(type, error, traceback);  // as it was raised
  } else {
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
    abandon(f);  // nothing unless the judge failed: nobody may wait for ever
  }
  return value;
}

// Runs a plain load on this thread. Takes `f`. No C++ destructor may live in this frame (see cache_base.hpp).
PyObject* lead(CachedCall* c, PyFlight* f, Nanos start, PyObject* const* args, std::size_t nargsf, PyObject* kwnames) {
  PyFlight*& innermost = running;  // the address once: in a shared library it costs a call
  PyFlight* outer = innermost;     // with its reference, until it is put back
  f->flight.parent = outer == nullptr ? nullptr : &outer->flight;
  innermost = f;
  Py_INCREF(f);
  ++c->stats->loads;
  PyObject* value = PyObject_Vectorcall(c->function, args, nargsf, kwnames);
  // The coarse clock: one load may be told as a tick too long or too short, their sum is right.
  const Nanos now = Clock::now();
  c->stats->load_time += now - start;
  // `f` stays the innermost until it has landed: what runs until then may ask for this very key.
  if (value == nullptr) {
    value = load_failed(c, f);
  } else if (f->load != nullptr) {  // the loader spoke with current_load()
    PyObject* to[] = {nullptr, reinterpret_cast<PyObject*>(c), reinterpret_cast<PyObject*>(f), value};
    track(f);
    PyObject* returned = value;
    value = PyObject_Vectorcall(hooks.commit, to + 1, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr);
    Py_DECREF(returned);
    abandon(f);  // nothing unless Ctrl-C came before it had landed
  } else {
    Stored stored = Stored::kNotKept;
    const bool ok = commit_plain(f, value, stored, now);
    PyObject* waiters = land(f, FlightState::kValue, value, nullptr);
    if (!ok) Py_CLEAR(value);  // the waiters have their value; the leader gets the error
    if (waiters != nullptr) {
      PyObject *type = nullptr, *error = nullptr, *traceback = nullptr;
      PyErr_Fetch(&type, &error, &traceback);
      wake(waiters);
      PyErr_Restore(type, error, traceback);
    }
  }
  PyFlight* last = innermost;  // `f`, unless greenlets came and went
  innermost = outer;
  Py_XDECREF(last);
  Py_DECREF(f);
  return value;
}

// Everything but a fresh hit. `nothing`: there is no entry at all.
PyObject* miss(CachedCall* c, const Probe& probe, bool nothing, Nanos now, KeyRow* row, PyObject* const* args,
               std::size_t nargsf, PyObject* kwnames) {
  const Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
  PyFlow* flow = c->flow;
  PyFlight* f = nullptr;
  PyObject* value = nullptr;
  bool give_up = !c->plain || flow->watched_loads();
  if (!give_up) {
    Decision d;
    if (nothing && flow->flights().size() == 0) {
      d.step = Step::kLead;
    } else {
      d = flow->look(probe, now, false);  // a call that is handed over is counted there
    }
    if (d.step == Step::kReturn) {
      flow->count_served(d.entry, c->scope, d.state);
      value = Py_NewRef(static_cast<PyObject*>(flow->memory()[d.entry].value));
    } else if (d.step == Step::kLead) {
      // Making the key and releasing the dead may run anything: if that touched the cache, decide anew. The dead go
      // before the flight is seen: a __del__ that asks for this very key would wait for a load that is below it on this
      // stack.
      const std::uint64_t generation = flow->generation();
      release_dead(flow);
      PyObject* key = own_key(probe.items, probe.count);
      if (key != nullptr) {
        f = new_flight(reinterpret_cast<CacheBase*>(c->cache), key, probe.hash, c->scope);
      }
      if (f != nullptr && generation != flow->generation()) {
        Py_CLEAR(f);
        give_up = true;
      }
      if (f != nullptr) {
        f->flight.found_nothing = d.nothing();
        try {
          flow->lead(f->flight, now, true);
        } catch (const std::bad_alloc&) {
          PyErr_NoMemory();
          Py_CLEAR(f);
        }
      }
    } else if (d.step != Step::kError) {
      give_up = true;
    }
  }
  release_dead(flow);
  if (row != nullptr) row->clear();
  if (f != nullptr) return lead(c, f, now, args, nargsf, kwnames);
  return give_up ? hand_over(c, args, nargs, kwnames) : value;
}

PyObject* look_up(CachedCall* c, const Probe& probe, Nanos now, KeyRow* row, PyObject* const* args, std::size_t nargsf,
                  PyObject* kwnames) {
  const Index i = c->flow->hit(probe, now);
  if (is_entry(i)) [[likely]] {
    ++c->stats->hits;
    PyObject* value = give(c, static_cast<PyObject*>(c->flow->memory()[i].value));
    if (row != nullptr) row->clear();
    return value;
  }
  if (i != kFindError) return miss(c, probe, i == kNone, now, row, args, nargsf, kwnames);
  if (row != nullptr) row->clear();
  return nullptr;
}

}  // namespace

// Keywords, defaults, *args, ignored parameters, key=, unhashable arguments.
bool make_row(CachedCall* c, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames, KeyRow& row,
              std::uint64_t& hash, bool& misfit) {
  misfit = false;
  row.init();
  switch (bind(*c->signature, args, nargs, kwnames, row)) {
    case Bound::kOk:
      break;
    case Bound::kMisfit:
      misfit = true;
      return false;
    case Bound::kError:
      return false;
  }
  if (c->key != nullptr) {
    PyObject* text = PyObject_Vectorcall(c->key, args, static_cast<std::size_t>(nargs), kwnames);
    if (text == nullptr) return false;
    row.place[0] = text;
    row.items = row.place;
    row.count = 1;
    if (!row.keep(text)) return false;
  }
  return hash_row(row, c->salt, reinterpret_cast<PyObject*>(c), hash);
}

namespace {

PyObject* call_general(CachedCall* c, PyObject* const* args, std::size_t nargsf, PyObject* kwnames) {
  KeyRow row;
  std::uint64_t hash = 0;
  bool misfit = false;
  const Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
  if (c->arity == -2) return hand_over(c, args, nargs, kwnames);  // copy=, or the cache is off and asks for no key
  if (!make_row(c, args, nargs, kwnames, row, hash, misfit)) {
    row.clear();
    // The function itself says best what is wrong with its arguments.
    return misfit ? PyObject_Vectorcall(c->function, args, nargsf, kwnames) : nullptr;
  }
  const Nanos now = Clock::now();
  return look_up(c, probe_for(c, row.items, row.count, hash), now, &row, args, nargsf, kwnames);
}

}  // namespace

PyObject* call(PyObject* self, PyObject* const* args, std::size_t nargsf, PyObject* kwnames) {
  CachedCall* c = as_call(self);
  if (kwnames == nullptr && PyVectorcall_NARGS(nargsf) == c->arity) [[likely]] {
    std::uint64_t hash = 0;
    Py_ssize_t which = 0;
    const Hashed hashed = c->arity == 1 && PyUnicode_CheckExact(args[0])
                              ? hash_str(args[0], c->salt, hash)
                              : hash_items(args, c->arity, c->salt, hash, which);
    if (hashed == Hashed::kOk) [[likely]] {
      const Nanos now = Clock::now();  // before the probe: what a call may have changed is read again
      return look_up(c, probe_for(c, args, c->arity, hash), now, nullptr, args, nargsf, kwnames);
    }
    if (hashed == Hashed::kError) return nullptr;
  }
  return call_general(c, args, nargsf, kwnames);
}

namespace {

// The step as _target.py knows it. Two more than the flow's: what is served is told apart for those who watch.
int python_step(const Decision& d) {
  if (d.step == Step::kConfirm) return PythonStep::kConfirm;
  if (d.step == Step::kReturn && d.state >= State::kStale) return PythonStep::kReturnStale;
  if (d.step == Step::kRefresh && d.state == State::kEarly) return PythonStep::kRefreshEarly;
  return static_cast<int>(d.step);
}

}  // namespace

PyObject* begin(CacheBase* cache, const Probe& probe, bool count, bool anew, Asked asked) {
  PyFlow* flow = cache->flow;
  if (cache->inbox != nullptr && !flow->trusted(Clock::now()) && (*cache->inbox)->waiting()) {
    PyObject* drained = PyObject_CallOneArg(hooks.drain, reinterpret_cast<PyObject*>(cache));
    if (drained == nullptr) return nullptr;
    Py_DECREF(drained);
  }
  PyFlight* spare = nullptr;
  PyObject* result = nullptr;
  for (;;) {
    const Nanos now = Clock::now();
    const std::uint64_t generation = flow->generation();
    const bool counts = count && !(spare != nullptr && spare->flight.background);
    const Decision d = flow->look(probe, now, counts, anew, asked);
    if (d.step == Step::kError) break;
    const bool leads = d.step == Step::kLead || d.step == Step::kRefresh;
    if (leads && spare == nullptr) {
      PyObject* key = own_key(probe.items, probe.count);
      spare = key == nullptr ? nullptr : new_flight(cache, key, probe.hash, probe.scope);
      if (spare == nullptr) break;
      track(spare);
      spare->flight.background = d.step == Step::kRefresh;
      if (generation != flow->generation()) continue;  // the collector ran and touched the cache
    }
    if (leads && flow->memory().has_dead()) {  // before the flight can be seen: a __del__ may ask for this very key
      release_dead(flow);
      continue;
    }
    PyObject* value = d.entry == kNone ? missing : static_cast<PyObject*>(flow->memory()[d.entry].value);
    Py_INCREF(value);
    PyObject* flight = Py_None;
    if (leads) {
      spare->flight.background = d.step == Step::kRefresh;
      try {
        flow->lead(spare->flight, now, count);
        spare->thread = PyThread_get_thread_ident();
      } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
        Py_DECREF(value);
        break;
      }
      flight = reinterpret_cast<PyObject*>(spare);
    } else if (d.step == Step::kFollow) {
      if (count) flow->joined(probe.scope);
      track(owner_of(d.flight));
      flight = reinterpret_cast<PyObject*>(owner_of(d.flight));
    }
    Py_INCREF(flight);
    result = Py_BuildValue("iNN", python_step(d), value, flight);
    break;
  }
  Py_XDECREF(spare);
  release_dead(flow);
  return result;
}

}  // namespace stillwarm::py
