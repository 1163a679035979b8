#include "bindings/cached_call.hpp"

#include <structmember.h>

#include "bindings/ready.hpp"

namespace stillwarm::py {

PyTypeObject* cached_call_type = nullptr;
Hooks hooks{};
PyObject* missing = nullptr;

namespace {

struct CachedCall {
  PyObject_HEAD
  vectorcallfunc vectorcall;
  PyObject* function;
  PyObject* cache;       // CacheBase
  Signature* signature;  // owned
  PyObject* key;         // key= callable, or nullptr
  PyObject* dict;
  PyObject* weakrefs;
  PyFlow* flow;          // of `cache`
  Stats* stats;          // of the scope
  std::uint64_t salt;
  ScopeId scope;
  Py_ssize_t arity;      // of calls that take the short way; -1: none do; -2: all calls go to Python
  bool is_async;
  bool plain;            // a load needs nothing but a call of the function
};

CachedCall* as_call(PyObject* o) { return reinterpret_cast<CachedCall*>(o); }

Probe probe_for(const CachedCall* c, PyObject* const* items, Py_ssize_t count, std::uint64_t hash) {
  const Scope& scope = c->flow->scopes()[c->scope];
  return {hash, c->scope, scope.shares ? &c->flow->scopes() : nullptr, items, count};
}

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
  PyFlight* outer = innermost;
  f->flight.parent = outer == nullptr ? nullptr : &outer->flight;
  innermost = f;
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
    PyObject* done = PyObject_Vectorcall(hooks.commit, to + 1, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr);
    if (done == nullptr) Py_CLEAR(value);
    Py_XDECREF(done);
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
  innermost = outer;
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
      // Making the key and releasing the dead may run anything: if that touched the cache, decide anew. The dead go before
      // the flight is seen: a __del__ that asks for this very key would wait for a load that is below it on this stack.
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
        f->flight.found_nothing = d.entry == kNone;
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

PyObject* look_up(CachedCall* c, const Probe& probe, KeyRow* row, PyObject* const* args, std::size_t nargsf,
                  PyObject* kwnames) {
  const Nanos now = Clock::now();
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

// Keywords, defaults, *args, ignored parameters, key=, unhashable arguments.
bool make_row(CachedCall* c, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames, KeyRow& row,
              std::uint64_t& hash, bool& misfit) {
  misfit = false;
  row.init();
  switch (bind(*c->signature, args, nargs, kwnames, row)) {
    case Bound::kOk: break;
    case Bound::kMisfit: misfit = true; return false;
    case Bound::kError: return false;
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
  const Probe probe = probe_for(c, row.items, row.count, hash);
  return look_up(c, probe, &row, args, nargsf, kwnames);
}

PyObject* call(PyObject* self, PyObject* const* args, std::size_t nargsf, PyObject* kwnames) {
  CachedCall* c = as_call(self);
  if (kwnames == nullptr && PyVectorcall_NARGS(nargsf) == c->arity) [[likely]] {
    std::uint64_t hash = 0;
    Py_ssize_t which = 0;
    const Hashed hashed = c->arity == 1 && PyUnicode_CheckExact(args[0])
                              ? hash_str(args[0], c->salt, hash)
                              : hash_items(args, c->arity, c->salt, hash, which);
    if (hashed == Hashed::kOk) [[likely]] {
      return look_up(c, probe_for(c, args, c->arity, hash), nullptr, args, nargsf, kwnames);
    }
    if (hashed == Hashed::kError) return nullptr;
  }
  return call_general(c, args, nargsf, kwnames);
}

// --- for the Python side -------------------------------------------------------------------------------------------

// args, kwargs -> a row; the vector that it borrows from is returned in `vector` (to be freed).
bool row_of(CachedCall* c, PyObject* args, PyObject* kwargs, KeyRow& row, PyObject**& vector, std::uint64_t& hash) {
  row.init();
  vector = nullptr;
  const Py_ssize_t nargs = PyTuple_GET_SIZE(args);
  const Py_ssize_t keywords = kwargs == nullptr || kwargs == Py_None ? 0 : PyDict_Size(kwargs);
  vector = static_cast<PyObject**>(PyMem_Malloc(static_cast<std::size_t>(nargs + keywords + 1) * sizeof(PyObject*)));
  if (vector == nullptr) {
    PyErr_NoMemory();
    return false;
  }
  for (Py_ssize_t i = 0; i < nargs; ++i) vector[i] = PyTuple_GET_ITEM(args, i);
  PyObject* names = nullptr;
  if (keywords > 0) {
    names = PyTuple_New(keywords);
    if (names == nullptr) return false;
    Py_ssize_t at = 0, k = 0;
    PyObject *name = nullptr, *value = nullptr;
    while (k < keywords && PyDict_Next(kwargs, &at, &name, &value)) {
      PyTuple_SET_ITEM(names, k, Py_NewRef(name));
      vector[nargs + k] = value;
      ++k;
    }
  }
  bool misfit = false;
  const bool made = make_row(c, vector, nargs, names, row, hash, misfit);
  Py_XDECREF(names);
  if (misfit) {
    PyObject* result = PyObject_Call(c->function, args, kwargs == Py_None ? nullptr : kwargs);
    Py_XDECREF(result);
    if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "the arguments do not fit the function's signature");
  }
  return made;
}

bool parse_args(PyObject* const* args, Py_ssize_t count, Py_ssize_t most) {
  if (count < 2 || count > most || !PyTuple_Check(args[0]) || !(args[1] == Py_None || PyDict_Check(args[1]))) {
    PyErr_SetString(PyExc_TypeError, "expected (args: tuple, kwargs: dict)");
    return false;
  }
  return true;
}

PyObject* call_begin(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  if (!parse_args(args, count, 3)) return nullptr;
  CachedCall* c = as_call(self);
  KeyRow row;
  PyObject** vector = nullptr;
  std::uint64_t hash = 0;
  PyObject* result = nullptr;
  if (row_of(c, args[0], args[1], row, vector, hash)) {
    result = begin(as_cache(c->cache), probe_for(c, row.items, row.count, hash), count < 3 || args[2] == Py_True);
  }
  row.clear();
  PyMem_Free(vector);
  return result;
}

// _key(args, kwargs): the stored form of the key.
PyObject* call_key(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  if (!parse_args(args, count, 2)) return nullptr;
  KeyRow row;
  PyObject** vector = nullptr;
  std::uint64_t hash = 0;
  PyObject* key = nullptr;
  if (row_of(as_call(self), args[0], args[1], row, vector, hash)) key = own_key(row.items, row.count);
  row.clear();
  PyMem_Free(vector);
  return key;
}

PyObject* get_function(PyObject* self, void*) { return Py_NewRef(as_call(self)->function); }
PyObject* get_cache(PyObject* self, void*) { return Py_NewRef(as_call(self)->cache); }
PyObject* get_scope(PyObject* self, void*) { return PyLong_FromUnsignedLong(as_call(self)->scope); }
PyObject* get_names(PyObject* self, void*) {
  const Signature& s = *as_call(self)->signature;
  PyObject* names = PyList_New(0);
  for (Py_ssize_t i = 0; names != nullptr && i < s.parameters(); ++i) {
    if (!s.ignored[i] && PyList_Append(names, s.names[i]) != 0) Py_CLEAR(names);
  }
  return names;
}

// --- the type ------------------------------------------------------------------------------------------------------

bool owned_row(PyObject* tuple, std::vector<PyObject*>& to, bool skip_missing) {
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); ++i) {
    PyObject* item = PyTuple_GET_ITEM(tuple, i);
    if (skip_missing && item == missing) {
      to.push_back(nullptr);
      continue;
    }
    Py_INCREF(item);
    if (!skip_missing) PyUnicode_InternInPlace(&item);
    to.push_back(item);
  }
  return true;
}

// CachedCall(cache, function, scope, names, defaults, ignored, positional_only, positional, var_positional, var_keyword,
//            key, is_async, plain, direct)
PyObject* call_new(PyTypeObject* type, PyObject* args, PyObject*) {
  PyObject *cache = nullptr, *function = nullptr, *names = nullptr, *defaults = nullptr, *ignored = nullptr,
           *key = nullptr;
  unsigned int scope = 0;
  Py_ssize_t positional_only = 0, positional = 0;
  int var_positional = 0, var_keyword = 0, is_async = 0, plain = 0, direct = 0;
  if (!PyArg_ParseTuple(args, "O!OIO!O!O!nnppOppp", cache_base_type, &cache, &function, &scope, &PyTuple_Type, &names,
                        &PyTuple_Type, &defaults, &PyTuple_Type, &ignored, &positional_only, &positional,
                        &var_positional, &var_keyword, &key, &is_async, &plain, &direct)) {
    return nullptr;
  }
  PyFlow* flow = flow_of(as_cache(cache));
  if (flow == nullptr) return nullptr;
  PyObject* self = type->tp_alloc(type, 0);
  if (self == nullptr) return nullptr;
  CachedCall* c = as_call(self);
  c->vectorcall = call;
  c->function = Py_NewRef(function);
  c->cache = Py_NewRef(cache);
  c->key = key == Py_None ? nullptr : Py_NewRef(key);
  c->flow = flow;
  c->scope = scope;
  c->is_async = is_async != 0;
  c->plain = plain != 0;
  try {
    c->signature = new Signature;
    Signature& s = *c->signature;
    const auto parameters = static_cast<std::size_t>(PyTuple_GET_SIZE(names));
    s.names.reserve(parameters);
    s.defaults.reserve(parameters);
    s.ignored.assign(parameters + 2, 0);
    owned_row(names, s.names, false);
    owned_row(defaults, s.defaults, true);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(ignored); ++i) {
      s.ignored.at(static_cast<std::size_t>(i)) = PyTuple_GET_ITEM(ignored, i) == Py_True;
    }
    s.positional_only = positional_only;
    s.positional = positional;
    s.var_positional = var_positional != 0;
    s.var_keyword = var_keyword != 0;
    s.plain = !s.var_positional && !s.var_keyword;
    for (const char flag : s.ignored) s.plain = s.plain && flag == 0;
    s.count = 0;
    for (std::size_t i = 0; i < parameters; ++i) s.count += s.ignored[i] ? 0 : 1;
    s.count += (s.var_positional && !s.ignored[parameters]) + (s.var_keyword && !s.ignored[parameters + 1]);
    Scope& own = flow->scopes()[scope];
    own.single = c->key != nullptr || s.count == 1;
    c->stats = &own.stats;
    c->salt = flow->scopes()[own.key_scope].salt;
    c->arity = !direct ? -2 : s.plain && c->key == nullptr && s.positional == s.parameters() ? s.positional : -1;
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
    Py_DECREF(self);
    return nullptr;
  }
  return self;
}

int call_traverse(PyObject* self, visitproc visit, void* arg) {
  CachedCall* c = as_call(self);
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(c->function);
  Py_VISIT(c->cache);
  Py_VISIT(c->key);
  Py_VISIT(c->dict);
  if (c->signature != nullptr) {
    for (PyObject* value : c->signature->defaults) Py_VISIT(value);
  }
  return 0;
}

// The cache, the function and the scope stay until the end: a call may still come from a finalizer.
int call_clear(PyObject* self) {
  Py_CLEAR(as_call(self)->dict);
  return 0;
}

void call_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  CachedCall* c = as_call(self);
  if (c->weakrefs != nullptr) PyObject_ClearWeakRefs(self);
  Py_CLEAR(c->dict);
  Py_CLEAR(c->function);
  Py_CLEAR(c->key);
  if (c->signature != nullptr) {
    for (PyObject* name : c->signature->names) Py_XDECREF(name);
    for (PyObject* value : c->signature->defaults) Py_XDECREF(value);
    delete c->signature;
  }
  if (c->cache != nullptr && as_cache(c->cache)->flow != nullptr) {
    c->flow->retire(c->scope);
    release_dead(c->flow);
  }
  Py_CLEAR(c->cache);
  PyTypeObject* type = Py_TYPE(self);
  type->tp_free(self);
  Py_DECREF(type);
}

PyObject* call_descr_get(PyObject* self, PyObject* object, PyObject*) {
  return object == nullptr || object == Py_None ? Py_NewRef(self) : PyMethod_New(self, object);
}

PyObject* call_repr(PyObject* self) {
  PyObject* name = PyObject_GetAttrString(self, "__qualname__");
  if (name == nullptr) {
    PyErr_Clear();
    name = Py_NewRef(Py_None);
  }
  PyObject* text = PyUnicode_FromFormat("<cached %s%S at %p>", as_call(self)->is_async ? "async " : "", name, self);
  Py_DECREF(name);
  return text;
}

PyMethodDef call_methods[] = {
    {"_begin", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(call_begin)), METH_FASTCALL,
     "_begin(args, kwargs, count=True): (step, value, flight)."},
    {"_key", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(call_key)), METH_FASTCALL,
     "_key(args, kwargs): the stored form of the key."},
    {nullptr, nullptr, 0, nullptr}};

PyGetSetDef call_getset[] = {{"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, nullptr, nullptr},
                             {"_function", get_function, nullptr, nullptr, nullptr},
                             {"_cache", get_cache, nullptr, nullptr, nullptr},
                             {"_scope", get_scope, nullptr, nullptr, nullptr},
                             {"_names", get_names, nullptr, nullptr, nullptr},
                             {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyMemberDef call_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(CachedCall, vectorcall), READONLY, nullptr},
    {"__dictoffset__", T_PYSSIZET, offsetof(CachedCall, dict), READONLY, nullptr},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(CachedCall, weakrefs), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr}};

PyType_Slot call_slots[] = {{Py_tp_new, reinterpret_cast<void*>(call_new)},
                            {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
                            {Py_tp_descr_get, reinterpret_cast<void*>(call_descr_get)},
                            {Py_tp_repr, reinterpret_cast<void*>(call_repr)},
                            {Py_tp_methods, call_methods},
                            {Py_tp_getset, call_getset},
                            {Py_tp_members, call_members},
                            {Py_tp_traverse, reinterpret_cast<void*>(call_traverse)},
                            {Py_tp_clear, reinterpret_cast<void*>(call_clear)},
                            {Py_tp_dealloc, reinterpret_cast<void*>(call_dealloc)},
                            {0, nullptr}};

PyType_Spec call_spec = {"stillwarm._core.CachedCall", sizeof(CachedCall), 0,
                         Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
                             Py_TPFLAGS_METHOD_DESCRIPTOR,
                         call_slots};

}  // namespace

bool add_cached_call(PyObject* module) {
  cached_call_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&call_spec));
  return cached_call_type != nullptr &&
         PyModule_AddObjectRef(module, "CachedCall", reinterpret_cast<PyObject*>(cached_call_type)) == 0;
}

void wake(PyObject* waiters) {
  if (waiters == nullptr) return;
  PyObject* done = PyObject_CallOneArg(hooks.wake, waiters);
  if (done == nullptr) PyErr_WriteUnraisable(hooks.wake);
  Py_XDECREF(done);
  Py_DECREF(waiters);
}

namespace {

// The step as _load.py knows it. Two more than the flow's: what is served is told apart for those who watch.
int python_step(const Decision& d) {
  constexpr int kReturnStale = 5, kRefreshEarly = 6;
  if (d.step == Step::kReturn && d.state >= State::kStale) return kReturnStale;
  if (d.step == Step::kRefresh && d.state == State::kEarly) return kRefreshEarly;
  return static_cast<int>(d.step);
}

}  // namespace

PyObject* begin(CacheBase* cache, const Probe& probe, bool count) {
  PyFlow* flow = cache->flow;
  PyFlight* spare = nullptr;
  PyObject* result = nullptr;
  for (;;) {
    const Nanos now = Clock::now();
    const std::uint64_t generation = flow->generation();
    const Decision d = flow->look(probe, now, count && !(spare != nullptr && spare->flight.background));
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
