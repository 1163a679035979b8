#include "bindings/cache_base.hpp"

#include <structmember.h>

#include <cmath>

#include "bindings/weigh.hpp"

namespace stillwarm::py {

PyTypeObject* cache_base_type = nullptr;

namespace {

std::uint64_t entropy() {
  std::random_device device;
  return (static_cast<std::uint64_t>(device()) << 32 | device()) | 1;
}

PyObject* cache_new(PyTypeObject* type, PyObject*, PyObject*) {
  PyObject* self = type->tp_alloc(type, 0);
  if (self != nullptr) as_cache(self)->flow = nullptr;
  return self;
}

int cache_init(PyObject* self, PyObject* args, PyObject* kwargs) {
  static const char* names[] = {"max_entries", "max_bytes", nullptr};
  unsigned long long max_entries = 0, max_bytes = 0;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "KK", const_cast<char**>(names), &max_entries, &max_bytes)) return -1;
  CacheBase* cache = as_cache(self);
  if (cache->flow != nullptr) {
    PyErr_SetString(PyExc_RuntimeError, "a Cache is initialised once");
    return -1;
  }
  try {
    cache->random_state = entropy();
    cache->flow = new PyFlow(Limits{max_entries, max_bytes}, entropy(), Clock::now());
    cache->direct = &cache->flow->scopes()[0];
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
    return -1;
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
    return -1;
  }
  return 0;
}

int cache_traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(as_cache(self)->set_slowly);
  Py_VISIT(as_cache(self)->get_slowly);
  PyFlow* flow = as_cache(self)->flow;
  if (flow == nullptr) return 0;
  auto& memory = flow->memory();
  for (Index i = 1; i < memory.end(); ++i) {
    if (!memory.live(i)) continue;
    Py_VISIT(static_cast<PyObject*>(memory[i].key));
    Py_VISIT(static_cast<PyObject*>(memory[i].value));
  }
  return 0;
}

int cache_clear(PyObject* self) {
  if (PyFlow* flow = as_cache(self)->flow; flow != nullptr) {
    flow->memory().each([flow](Index i) { flow->memory().drop(i, Cause::kInvalidated); });
    std::vector<PyObject*> keys;
    flow->memory().take_hits([&](Handle key, ScopeId, std::uint32_t, bool given) {
      if (given) keys.push_back(static_cast<PyObject*>(key));
    });
    release_dead(flow);
    for (PyObject* key : keys) Py_DECREF(key);
  }
  return 0;
}

void cache_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  CacheBase* cache = as_cache(self);
  if (cache->weakrefs != nullptr) PyObject_ClearWeakRefs(self);
  cache_clear(self);
  delete cache->flow;
  cache->flow = nullptr;
  delete cache->inbox;
  cache->inbox = nullptr;
  Py_CLEAR(cache->set_slowly);
  Py_CLEAR(cache->get_slowly);
  PyTypeObject* type = Py_TYPE(self);
  type->tp_free(self);
  Py_DECREF(type);
}

// With a remote tier: whatever is not simply there.
PyObject* get_remotely(PyObject* self, PyObject* key, PyObject* fallback) {
  PyObject* to[] = {nullptr, self, key, fallback};
  return PyObject_Vectorcall(as_cache(self)->get_slowly, to + 1, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr);
}

PyObject* bad_key(PyObject* key) {
  PyErr_Format(PyExc_TypeError, "key must be a str, not %.100s", Py_TYPE(key)->tp_name);
  return nullptr;
}

PyObject* absent(PyFlow* flow, PyObject* fallback) {
  ++flow->scopes()[0].stats.misses;
  return Py_NewRef(fallback);
}

// Whatever `get` finds that is not simply fresh: stale, marked, an absence, nothing.
PyObject* get_slow(PyFlow* flow, const Probe& probe, PyObject* fallback) {
  const Nanos now = Clock::now();
  const Index i = flow->peek(probe, now);
  if (i == kFindError) return nullptr;
  PyObject* value = nullptr;
  if (i == kNone || (flow->memory()[i].flags & kFlagNegative)) {
    value = absent(flow, fallback);
  } else {
    const Entry& e = flow->memory()[i];
    flow->count_served(i, 0, state_of(e, flow->scopes()[e.scope].durations, now));
    value = Py_NewRef(static_cast<PyObject*>(e.value));
  }
  release_dead(flow);
  return value;
}

// get(key, default=None). The hot path: kept free of everything else.
PyObject* cache_get(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  PyFlow* flow = as_cache(self)->flow;
  if (count < 1 || count > 2 || flow == nullptr) [[unlikely]] {
    PyErr_Format(PyExc_TypeError, "get(key, default=None) takes 1 or 2 positional arguments (%zd given)", count);
    return nullptr;
  }
  PyObject* fallback = count == 2 ? args[1] : Py_None;
  const Nanos now = Clock::now();  // before the probe: what a call may have changed is read again
  Probe probe;
  probe.items = args;  // the caller's reference keeps the key alive; comparing exact strings runs no code
  probe.count = 1;
  if (!PyUnicode_CheckExact(args[0])) [[unlikely]] {
    if (!PyUnicode_Check(args[0])) return bad_key(args[0]);
    PyObject* key = PyUnicode_FromObject(args[0]);  // an exact copy of a subclass's text
    if (key == nullptr) return nullptr;
    if (as_cache(self)->get_slowly != nullptr) {
      PyObject* value = get_remotely(self, key, fallback);
      Py_DECREF(key);
      return value;
    }
    probe.items = &key;
    PyObject* value =
        hash_str(key, flow->scopes()[0].salt, probe.hash) == Hashed::kOk ? get_slow(flow, probe, fallback) : nullptr;
    Py_DECREF(key);
    return value;
  }
  Scope& scope = *as_cache(self)->direct;
  if (hash_str(args[0], scope.salt, probe.hash) != Hashed::kOk) [[unlikely]]
    return nullptr;
  const Index i = flow->hit(probe, now);
  if (!is_entry(i)) [[unlikely]] {
    if (as_cache(self)->get_slowly != nullptr && i != kFindError) return get_remotely(self, args[0], fallback);
    return i == kNone ? absent(flow, fallback) : get_slow(flow, probe, fallback);
  }
  ++scope.stats.hits;
  return Py_NewRef(static_cast<PyObject*>(flow->memory()[i].value));
}

// A ttl that needs no thought: int or float seconds from 10 ms to 100 years, or None. 0: something else.
Nanos plain_ttl(PyObject* ttl) {
  constexpr double kMost = 36525.0 * 86400.0;
  if (ttl == Py_None) return kForever;
  double seconds = 0;
  if (PyFloat_CheckExact(ttl)) {
    seconds = PyFloat_AS_DOUBLE(ttl);
  } else if (PyLong_CheckExact(ttl)) {
    int overflow = 0;
    seconds = static_cast<double>(PyLong_AsLongLongAndOverflow(ttl, &overflow));
    if (overflow != 0) return 0;
  }
  return seconds >= 0.01 && seconds <= kMost ? static_cast<Nanos>(std::llround(seconds * 1e9)) : 0;
}

// set(key, value, ttl=..., tags=()). Without tags and with a plain ttl it is done here; anything else, and every
// mistake, is the Python side's.
PyObject* cache_set(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames) {
  static constexpr const char* kNames[] = {"key", "value", "ttl", "tags"};
  PyObject* bound[4] = {nullptr, nullptr, nullptr, nullptr};
  if (nargs > 4) {
    PyErr_Format(PyExc_TypeError, "set(key, value, ttl, tags) takes 4 arguments at most (%zd given)", nargs);
    return nullptr;
  }
  for (Py_ssize_t i = 0; i < nargs; ++i) bound[i] = args[i];
  const Py_ssize_t keywords = kwnames == nullptr ? 0 : PyTuple_GET_SIZE(kwnames);
  for (Py_ssize_t k = 0; k < keywords; ++k) {
    PyObject* name = PyTuple_GET_ITEM(kwnames, k);
    int at = 0;
    while (at < 4 && PyUnicode_CompareWithASCIIString(name, kNames[at]) != 0) ++at;
    if (at == 4 || bound[at] != nullptr) {
      PyErr_Format(PyExc_TypeError,
                   at == 4 ? "set() has no argument %R; accepted: key, value, ttl, tags"
                           : "set() got several values for argument %R",
                   name);
      return nullptr;
    }
    bound[at] = args[nargs + k];
  }
  if (bound[0] == nullptr || bound[1] == nullptr) {
    PyErr_SetString(PyExc_TypeError, "set(key, value, ttl, tags) needs key and value");
    return nullptr;
  }
  CacheBase* cache = as_cache(self);
  if (flow_of(cache) == nullptr) return nullptr;
  const Nanos ttl = cache->direct_ttl < 0 ? 0 : bound[2] == nullptr ? cache->direct_ttl : plain_ttl(bound[2]);
  if (ttl == 0 || bound[3] != nullptr || !PyUnicode_CheckExact(bound[0])) {
    if (cache->set_slowly == nullptr) {
      PyErr_SetString(PyExc_RuntimeError, "this Cache was not initialised");
      return nullptr;
    }
    PyObject* to[] = {nullptr, self, bound[0], bound[1], bound[2], bound[3]};
    const Py_ssize_t given = bound[3] != nullptr && bound[2] != nullptr ? 5
                             : bound[3] != nullptr                      ? -1
                             : bound[2] != nullptr                      ? 4
                                                                        : 3;
    if (given > 0) {
      return PyObject_Vectorcall(cache->set_slowly, to + 1,
                                 static_cast<std::size_t>(given) | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr);
    }
    PyObject* name = Py_BuildValue("(s)", "tags");  // tags without a ttl
    if (name == nullptr) return nullptr;
    to[4] = bound[3];
    PyObject* result = PyObject_Vectorcall(cache->set_slowly, to + 1, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, name);
    Py_DECREF(name);
    return result;
  }
  PyFlow* flow = cache->flow;
  Probe probe;
  probe.items = bound;
  probe.count = 1;
  if (hash_str(bound[0], cache->direct->salt, probe.hash) != Hashed::kOk) return nullptr;
  Result result;
  result.value = bound[1];
  result.weight = weigh(bound[1]) + weigh(bound[0]) + kEntryOverhead;
  result.durations.ttl = ttl;
  Outcome outcome;
  bool took_key = false;
  Py_INCREF(bound[0]);
  Py_INCREF(bound[1]);
  bool ok = true;
  try {
    outcome = flow->set(probe, bound[0], result, took_key, Clock::now());
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
    ok = false;
  }
  if (!took_key) Py_DECREF(bound[0]);
  if (outcome.stored != Stored::kStored) Py_DECREF(bound[1]);
  if (outcome.released != nullptr) Py_DECREF(static_cast<PyObject*>(outcome.released));
  release_dead(flow);
  return ok ? PyBool_FromLong(outcome.stored == Stored::kStored) : nullptr;
}

PyMethodDef cache_methods[] = {
    {"set", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(cache_set)), METH_FASTCALL | METH_KEYWORDS,
     "set($self, key, value, ttl=..., tags=())\n--\n\nStores `value` under a str key for `ttl`: seconds, text such as "
     "\"5m\", "
     "timedelta, None for ever, 0 to store nothing.\n\nReturns False if it was not kept: too large, or 0.\n\nRaises:\n"
     "    ConfigError: a ttl that is not accepted, or none here and none given to the Cache."},
    {"get", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(cache_get)), METH_FASTCALL,
     "get($self, key, default=None, /)\n--\n\nThe value stored under a str key, or `default`. Never loads; what is "
     "not in memory is asked of the remote tier, if there is one."},
    {nullptr, nullptr, 0, nullptr}};

PyMemberDef cache_members[] = {{"__weaklistoffset__", T_PYSSIZET, offsetof(CacheBase, weakrefs), READONLY, nullptr},
                               {nullptr, 0, 0, 0, nullptr}};

PyType_Slot cache_slots[] = {{Py_tp_new, reinterpret_cast<void*>(cache_new)},
                             {Py_tp_init, reinterpret_cast<void*>(cache_init)},
                             {Py_tp_methods, cache_methods},
                             {Py_tp_members, cache_members},
                             {Py_tp_traverse, reinterpret_cast<void*>(cache_traverse)},
                             {Py_tp_clear, reinterpret_cast<void*>(cache_clear)},
                             {Py_tp_dealloc, reinterpret_cast<void*>(cache_dealloc)},
                             {Py_tp_doc, const_cast<char*>("The core of a Cache.")},
                             {0, nullptr}};

PyType_Spec cache_spec = {"stillwarm._core.CacheBase", sizeof(CacheBase), 0,
                          Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, cache_slots};

}  // namespace

bool add_cache_base(PyObject* module) {
  cache_base_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&cache_spec));
  return cache_base_type != nullptr &&
         PyModule_AddObjectRef(module, "CacheBase", reinterpret_cast<PyObject*>(cache_base_type)) == 0;
}

bool adopt_methods(PyTypeObject* subclass) {
  for (PyMethodDef* method = cache_methods; method->ml_name != nullptr; ++method) {
    PyObject* descriptor = PyDescr_NewMethod(subclass, method);
    if (descriptor == nullptr) return false;
    const int set = PyObject_SetAttrString(reinterpret_cast<PyObject*>(subclass), method->ml_name, descriptor);
    Py_DECREF(descriptor);
    if (set != 0) return false;
  }
  return true;
}

PyFlow* flow_of(CacheBase* cache) {
  if (cache->flow == nullptr) PyErr_SetString(PyExc_RuntimeError, "this Cache was not initialised");
  return cache->flow;
}

void release_dead_slow(PyFlow* flow) {
  while (flow->memory().has_dead()) {
    const Dead dead = flow->memory().take_dead();
    Py_XDECREF(static_cast<PyObject*>(dead.key));
    Py_DECREF(static_cast<PyObject*>(dead.value));
  }
}

bool text_probe(CacheBase* cache, ScopeId scope, PyObject* const* key, Probe& probe) {
  if (!PyUnicode_CheckExact(*key)) {
    bad_key(*key);
    return false;
  }
  return stored_probe(cache, scope, key, probe);
}

bool stored_probe(CacheBase* cache, ScopeId scope, PyObject* const* key, Probe& probe) {
  PyFlow* flow = flow_of(cache);
  if (flow == nullptr) return false;
  if (scope >= flow->scopes().size() || !flow->scopes()[scope].in_use) {
    PyErr_SetString(PyExc_ValueError, "no such scope");
    return false;
  }
  const Scope& s = flow->scopes()[scope];
  // A key of one item is the item itself, so a tuple is a row of items unless the scope's rows have one item.
  const bool row = PyTuple_CheckExact(*key) && !s.single;
  probe.scope = scope;
  probe.shared = s.key_scope == scope && !s.shares ? nullptr : &flow->scopes();
  probe.items = row ? reinterpret_cast<PyTupleObject*>(*key)->ob_item : key;
  probe.count = row ? PyTuple_GET_SIZE(*key) : 1;
  Py_ssize_t which = 0;
  const std::uint64_t salt = flow->scopes()[s.key_scope].salt;
  switch (hash_items(probe.items, probe.count, salt, probe.hash, which)) {
    case Hashed::kOk:
      return true;
    case Hashed::kError:
      return false;
    case Hashed::kByContent:
      break;
  }
  PyErr_Format(PyExc_TypeError, "unhashable key item of type %.100s", Py_TYPE(probe.items[which])->tp_name);
  return false;
}

}  // namespace stillwarm::py
