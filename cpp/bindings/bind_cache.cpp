// The part of a cache that is not on the hot path: scopes, direct verbs, invalidation, statistics.
//
// Thread rule: with the GIL.
// Refuses to know: flights (bind_flight.cpp) and the public names; python/stillwarm/_cache.py and its bases give them.
#include <pybind11/stl.h>

#include "bindings/bind.hpp"
#include "bindings/cached_call.hpp"
#include "bindings/weigh.hpp"

namespace stillwarm {
namespace {

namespace pb = pybind11;
using py::as_cache;
using py::CacheBase;
using py::Probe;
using py::PyFlow;

CacheBase* cache_of(pb::handle self) {
  if (!PyObject_TypeCheck(self.ptr(), py::cache_base_type)) throw pb::type_error("expected a Cache");
  CacheBase* cache = as_cache(self.ptr());
  if (py::flow_of(cache) == nullptr) throw pb::error_already_set();
  return cache;
}

// Releases what an operation removed, after everything else: declared first. A __del__ may run, and in it, or in a
// key's __eq__ before it, a daemon thread may be ended at interpreter exit. That unwinds the stack: through this
// destructor, which therefore must not be noexcept, or into it, without the GIL. So no frame here owns a reference
// through an object with a destructor while either may run; arguments are handles.
struct Releasing {
  PyFlow* flow;
  explicit Releasing(PyFlow* of) noexcept : flow(of) {}
  Releasing(const Releasing&) = delete;
  Releasing& operator=(const Releasing&) = delete;
  ~Releasing() noexcept(false) {
    if (PyGILState_Check() != 0) py::release_dead(flow);
  }
};

// A stored key with its probe. The probe points into the object: it stays where it is.
struct Key {
  PyObject* object;
  Probe probe;
  Key(CacheBase* cache, ScopeId scope, pb::handle key) : object(key.ptr()) {
    if (!py::stored_probe(cache, scope, &object, probe)) throw pb::error_already_set();
  }
  Key(const Key&) = delete;
  Key& operator=(const Key&) = delete;
};

Index found(Index i) {
  if (i == kFindError) throw pb::error_already_set();
  return i;
}

// A new reference.
PyObject* value_at(PyFlow* flow, Index i) {
  return Py_NewRef(i == kNone ? py::missing : static_cast<PyObject*>(flow->memory()[i].value));
}

int put(pb::handle self, ScopeId scope, pb::handle key, pb::handle value, Nanos ttl, Nanos swr, Nanos sie,
        const std::vector<std::uint64_t>& tags, std::int64_t weight, bool only_if_absent, std::uint64_t since,
        bool answered) {
  CacheBase* cache = cache_of(self);
  PyFlow* flow = cache->flow;
  const Releasing releasing{flow};
  const Key k(cache, scope, key);
  Result result;
  result.value = value.ptr();
  result.since = since;
  result.answered = answered;
  result.weight = static_cast<std::uint64_t>(weight >= 0 ? weight : static_cast<std::int64_t>(py::weigh(value.ptr()))) +
                  py::weigh(k.object) + py::kEntryOverhead;
  result.durations = flow->scopes()[scope].durations;
  result.durations.ttl = ttl;
  result.durations.stale_while_revalidate = swr;
  result.durations.stale_if_error = sie;
  result.durations.early = 0;
  result.durations.keep = 0;
  const Durations& own = flow->scopes()[scope].durations;
  result.own_durations = swr != own.stale_while_revalidate || sie != own.stale_if_error || own.keep != 0;
  result.tags = tags;
  PyObject* owned = py::own_key(k.probe.items, k.probe.count);
  if (owned == nullptr) throw pb::error_already_set();
  bool took_key = false;
  if (only_if_absent) {  // from here to the end no Python code runs: nobody comes in between
    const Index there = flow->peek(k.probe, Clock::now());
    if (there == kFindError || (there != kNone && !(flow->memory()[there].flags & kFlagNegative))) {
      Py_DECREF(owned);
      found(there);
      return static_cast<int>(Stored::kNotKept);
    }
  }
  Py_INCREF(value.ptr());
  Outcome outcome;
  try {
    outcome = flow->set(k.probe, owned, result, took_key, Clock::now());
  } catch (const std::bad_alloc&) {
    Py_DECREF(value.ptr());
    Py_DECREF(owned);
    throw;
  }
  if (!took_key) Py_DECREF(owned);
  if (outcome.stored != Stored::kStored) Py_DECREF(value.ptr());
  if (outcome.released != nullptr) Py_DECREF(static_cast<PyObject*>(outcome.released));
  if (PyErr_Occurred() != nullptr) throw pb::error_already_set();
  return static_cast<int>(outcome.stored);
}

// Adds to an int that is there; its deadlines stay. MISSING if there is none. A new reference.
PyObject* add_to(CacheBase* cache, ScopeId scope, pb::handle key, pb::handle delta) {
  PyFlow* flow = cache->flow;
  const Releasing releasing{flow};
  const Key k(cache, scope, key);
  const Nanos now = Clock::now();
  const Index i = found(flow->peek(k.probe, now));
  if (i == kNone || (flow->memory()[i].flags & kFlagNegative)) return value_at(flow, kNone);
  if (!PyLong_CheckExact(delta.ptr())) throw pb::type_error("incr() adds an int");
  auto* old = static_cast<PyObject*>(flow->memory()[i].value);
  if (!PyLong_CheckExact(old)) {
    throw pb::type_error("incr() works on int, and the stored value is a " + std::string(Py_TYPE(old)->tp_name));
  }
  PyObject* sum = PyNumber_Add(old, delta.ptr());  // ints: no Python code
  if (sum == nullptr) throw pb::error_already_set();
  if (!flow->detach(k.probe)) {  // nor do texts that are compared: `i` is still the entry
    Py_DECREF(sum);
    throw pb::error_already_set();
  }
  flow->memory()[i].value = Py_NewRef(sum);
  Py_DECREF(old);
  return sum;
}

pb::object incr(pb::handle self, ScopeId scope, pb::handle key, pb::handle delta) {
  return pb::reinterpret_steal<pb::object>(add_to(cache_of(self), scope, key, delta));
}

PyObject* value_of(CacheBase* cache, ScopeId scope, pb::handle key) {
  const Releasing releasing{cache->flow};
  const Key k(cache, scope, key);
  const Index i = found(cache->flow->peek(k.probe, Clock::now()));
  if (i != kNone && (cache->flow->memory()[i].flags & kFlagNegative)) return value_at(cache->flow, kNone);
  return value_at(cache->flow, i);
}

pb::object peek(pb::handle self, ScopeId scope, pb::handle key) {
  return pb::reinterpret_steal<pb::object>(value_of(cache_of(self), scope, key));
}

Nanos left(Nanos until, Nanos now) { return until == kForever ? kForever : until - now; }

// (state, fresh left, gone left) in ns, or None.
pb::object life(pb::handle self, ScopeId scope, pb::handle key) {
  CacheBase* cache = cache_of(self);
  PyFlow* flow = cache->flow;
  const Releasing releasing{flow};
  const Key k(cache, scope, key);
  const Index i = found(flow->memory().find(k.probe));
  if (i == kNone || !flow->confirm(i)) return pb::none();
  const Entry& e = flow->memory()[i];
  const Durations& d = flow->scopes()[e.scope].durations;
  const Nanos now = Clock::now();
  const Life l = life_of(e, d);
  return pb::make_tuple(static_cast<int>(state_of(e, d, now)), left(l.fresh_until, now), left(l.gone_at, now));
}

// Fresh for `ttl` from now on. False: nothing there that could be returned.
bool touch(pb::handle self, ScopeId scope, pb::handle key, Nanos ttl) {
  CacheBase* cache = cache_of(self);
  PyFlow* flow = cache->flow;
  const Releasing releasing{flow};
  const Key k(cache, scope, key);
  const Nanos now = Clock::now();
  const Index i = found(flow->peek(k.probe, now));
  if (i == kNone || (flow->memory()[i].flags & kFlagNegative)) return false;
  if (ttl <= 0) {
    flow->memory().drop(i, Cause::kInvalidated);
    return true;
  }
  Entry& e = flow->memory()[i];
  e.next_at = add(now, ttl);
  if (e.extra != nullptr) {
    e.extra->ttl = ttl;
    e.extra->fresh_until = e.next_at;
  }
  flow->memory().reschedule(i);
  return true;
}

bool invalidate_key(pb::handle self, ScopeId scope, pb::handle key, bool soft) {
  CacheBase* cache = cache_of(self);
  const Releasing releasing{cache->flow};
  const Key k(cache, scope, key);
  const bool there = cache->flow->invalidate_key(k.probe, soft, Clock::now());
  if (PyErr_Occurred() != nullptr) throw pb::error_already_set();
  return there;
}

void mark(pb::handle self, const std::string& kind, std::uint64_t id, bool soft) {
  CacheBase* cache = cache_of(self);
  PyFlow* flow = cache->flow;
  const Releasing releasing{flow};
  const Nanos now = Clock::now();
  if (kind == "all") {
    flow->invalidate_all(soft, now);
  } else if (kind == "type") {
    flow->invalidate_type(static_cast<TypeId>(id), soft, now);
  } else if (kind == "scope") {
    flow->invalidate_scope(static_cast<ScopeId>(id), soft, now);
  } else {
    flow->invalidate_tag(id, soft, now);
  }
}

void clear(pb::handle self, std::int64_t scope) {
  CacheBase* cache = cache_of(self);
  const Releasing releasing{cache->flow};
  cache->flow->clear(scope < 0 ? std::nullopt : std::optional<ScopeId>(static_cast<ScopeId>(scope)));
}

// (scope, key, hits, weight, state) of every entry that a mark did not invalidate, what is KEPT included.
pb::list snapshot(pb::handle self, std::int64_t scope) {
  CacheBase* cache = cache_of(self);
  PyFlow* flow = cache->flow;
  // Making tuples may run the collector and so change the tier: references first, into memory that Python does not see.
  struct Row {
    ScopeId scope;
    PyObject* key;
    std::uint32_t hits, weight;
    State state;
  };
  std::vector<Row> rows;
  rows.reserve(flow->memory().size());
  const Nanos now = Clock::now();
  {
    const Releasing releasing{flow};
    for (Index i = 1; i < flow->memory().end(); ++i) {
      if (!flow->memory().live(i) || !flow->confirm(i)) continue;
      const Entry& e = flow->memory()[i];
      const State state = state_of(e, flow->scopes()[e.scope].durations, now);
      if (state == State::kGone || (scope >= 0 && e.scope != static_cast<ScopeId>(scope))) continue;
      rows.push_back({e.scope, Py_NewRef(static_cast<PyObject*>(e.key)), e.hits, e.weight, state});
    }
  }
  pb::list list;
  for (const Row& row : rows) {
    list.append(pb::make_tuple(row.scope, pb::reinterpret_steal<pb::object>(row.key), row.hits, row.weight,
                               static_cast<int>(row.state)));
  }
  return list;
}

// (scope, key, hits) of everything that was hit since the last call.
pb::list take_hits(pb::handle self) {
  PyFlow* flow = cache_of(self)->flow;
  struct Row {
    ScopeId scope;
    PyObject* key;
    std::uint32_t hits;
  };
  std::vector<Row> rows;  // first, without the collector: see snapshot
  flow->memory().take_hits([&](Handle key, ScopeId scope, std::uint32_t hits, bool given) {
    auto* object = static_cast<PyObject*>(key);
    rows.push_back({scope, given ? object : Py_NewRef(object), hits});
  });
  pb::list list;
  for (const Row& row : rows) {
    list.append(pb::make_tuple(row.scope, pb::reinterpret_steal<pb::object>(row.key), row.hits));
  }
  return list;
}

ScopeId new_scope(pb::handle self, TypeId type, std::string name, std::int64_t key_scope) {
  CacheBase* cache = cache_of(self);
  ScopeTable& scopes = cache->flow->scopes();
  const auto salt = static_cast<std::uint64_t>(py::next_random(cache) * 0x1p53) ^ cache->random_state;
  Scope& scope = scopes.add(type, std::move(name), salt);
  if (key_scope >= 0) {
    scope.key_scope = static_cast<ScopeId>(key_scope);
    scope.shares = scopes[scope.key_scope].shares = true;
    scope.single = scopes[scope.key_scope].single = true;
  }
  return scope.id;
}

void set_durations(pb::handle self, ScopeId scope, Nanos ttl, Nanos swr, Nanos sie, Nanos negative_ttl, double early,
                   double jitter, Nanos keep) {
  cache_of(self)->flow->scopes()[scope].durations = {ttl, swr, sie, negative_ttl, early, jitter, keep};
}

pb::dict stats(pb::handle self, ScopeId scope) {
  const Stats s = cache_of(self)->flow->scopes()[scope].stats;
  pb::dict d, removed;
  d["hits"] = s.hits;
  d["stale_hits"] = s.stale_hits;
  d["misses"] = s.misses;
  d["loads"] = s.loads;
  d["load_errors"] = s.load_errors;
  d["load_seconds"] = static_cast<double>(s.load_time) * 1e-9;
  d["joined"] = s.joined;
  d["lost_fills"] = s.lost_fills;
  d["skipped_refreshes"] = s.skipped_refreshes;
  d["remote_hits"] = s.remote_hits;
  d["entries"] = s.entries;
  d["bytes"] = s.bytes;
  for (std::size_t i = 0; i < kCauses; ++i) removed[kCauseNames[i]] = s.removed[i];
  d["removed"] = removed;
  return d;
}

pb::dict totals(pb::handle self) {
  PyFlow* flow = cache_of(self)->flow;
  pb::dict d;
  d["entries"] = flow->memory().size();
  d["bytes"] = flow->memory().bytes();
  d["max_entries"] = flow->memory().limits().max_entries;
  d["max_bytes"] = flow->memory().limits().max_bytes;
  d["flights"] = flow->flights().size();
  d["tags_marked"] = flow->marks().tags();
  d["most_removed_per_call"] = flow->memory().most_removed();
  return d;
}

}  // namespace

void bind_cache(pb::module_& m) {
  m.def("adopt_methods", [](const pb::type& subclass) {
    if (!py::adopt_methods(reinterpret_cast<PyTypeObject*>(subclass.ptr()))) throw pb::error_already_set();
  });
  // ttl of `set` without one: 0 asks the Python side, -1 sends every set there.
  m.def("set_direct", [](pb::handle self, Nanos ttl, const pb::object& set_slowly) {
    CacheBase* cache = cache_of(self);
    cache->direct_ttl = ttl;
    Py_XSETREF(cache->set_slowly, Py_NewRef(set_slowly.ptr()));
  });
  m.def("set_get_slowly", [](pb::handle self, pb::handle get_slowly) {
    Py_XSETREF(cache_of(self)->get_slowly, Py_NewRef(get_slowly.ptr()));
  });
  m.def("take_hits", take_hits);
  m.def("put", put);
  m.def("incr", incr);
  m.def("peek", peek);
  m.def("life", life);
  m.def("touch", touch);
  m.def("invalidate_key", invalidate_key);
  m.def("mark", mark);
  m.def("fence_pattern", [](pb::handle self) { cache_of(self)->flow->fence_pattern(); });
  m.def("clear", clear);
  m.def("snapshot", snapshot);
  m.def("new_scope", new_scope);
  m.def("set_single", [](pb::handle self, ScopeId scope) { cache_of(self)->flow->scopes()[scope].single = true; });
  m.def("is_single", [](pb::handle self, ScopeId scope) { return cache_of(self)->flow->scopes()[scope].single; });
  m.def("set_durations", set_durations);
  m.def("stats", stats);
  m.def("totals", totals);
  m.def("reset_stats",
        [](pb::handle self, ScopeId scope) { cache_of(self)->flow->scopes()[scope].stats.reset_counters(); });
  m.def("watch", [](pb::handle self, bool hits, bool loads) { cache_of(self)->flow->set_watched(hits, loads); });
  m.def("settle", [](pb::handle self) {
    PyFlow* flow = cache_of(self)->flow;
    const Releasing releasing{flow};
    flow->settle(Clock::now());
  });
  m.def("detach", [](pb::handle self, ScopeId scope, pb::handle key) {
    CacheBase* cache = cache_of(self);
    const Releasing releasing{cache->flow};
    const Key k(cache, scope, key);
    if (!cache->flow->detach(k.probe)) throw pb::error_already_set();
    return cache->flow->marks().counter();
  });
  m.def("detach_all", [](pb::handle self) { cache_of(self)->flow->detach_all(); });
  m.def("check_invariants", [](pb::handle self) { return cache_of(self)->flow->check_invariants(); });
  m.def(
      "begin_key",
      [](pb::handle self, ScopeId scope, pb::handle key, bool count, bool anew, int asked) {
        CacheBase* cache = cache_of(self);
        const Key k(cache, scope, key);
        PyObject* result = py::begin(cache, k.probe, count, anew, static_cast<Asked>(asked));
        if (result == nullptr) throw pb::error_already_set();
        return pb::reinterpret_steal<pb::object>(result);
      },
      pb::arg("cache"), pb::arg("scope"), pb::arg("key"), pb::arg("count"), pb::arg("anew") = false,
      pb::arg("asked") = 0);
  m.def("weigh", [](pb::handle value) { return py::weigh(value.ptr()); });
  m.def("tag_fingerprint", [](const pb::str& tag) {
    std::uint64_t fingerprint = 0;
    if (!py::tag_fingerprint(tag.ptr(), fingerprint)) throw pb::error_already_set();
    return fingerprint;
  });
  m.def("set_content_types", [](pb::handle c, pb::handle types) { py::set_content_types(c.ptr(), types.ptr()); });
  m.def("set_freeze", [](pb::handle freeze) { py::set_freeze(freeze.ptr()); });
  m.def("clock_now", [] { return Clock::now(); });
  m.def("clock_set", [](Nanos t) { Clock::set_manual(t); });
  m.attr("FOREVER") = kForever;
  m.attr("EARLY_AUTO") = kEarlyAuto;
  m.attr("MISSING") = pb::reinterpret_borrow<pb::object>(py::missing);
}

}  // namespace stillwarm
