// The raw type under stillwarm.Cache: a Flow over Python objects, with `get` as fast as a dict's.
//
// Thread rule: with the GIL; nothing here releases it.
// Refuses to know: decorated functions (cached_call.hpp), how loads are waited for (_load.py, _aload.py).
//
// Whatever may release an object calls release_dead() last, when the cache is whole again: a __del__ may use the cache.
// No C++ object with a destructor lives in a frame that calls Python code which may block: at interpreter exit a daemon
// thread is unwound there, without the GIL.
#pragma once

#include <random>

#include "bindings/py_traits.hpp"
#include "core/flow.hpp"
#include "core/remote/inbox.hpp"

namespace stillwarm::py {

using PyFlow = Flow<Traits>;

struct CacheBase {
  PyObject_HEAD PyFlow* flow;  // nullptr until __init__ ran
  Scope* direct;               // scope 0: the direct verbs
  PyObject* weakrefs;
  std::uint64_t random_state;
  Nanos direct_ttl;               // of `set` without a ttl; 0: the Python side knows
  PyObject* set_slowly;           // the Python side of `set`: set_slowly(cache, key, value, ttl, tags)
  PyObject* get_slowly;           // of `get`, where there is a remote tier: get_slowly(cache, key, default)
  std::shared_ptr<Inbox>* inbox;  // owned; nullptr: there is no remote tier
};

extern PyTypeObject* cache_base_type;

bool add_cache_base(PyObject* module);

// `get` and `set` as methods of exactly this subclass: CPython specialises the call of a C method only where the
// object's type is the one that defines it.
bool adopt_methods(PyTypeObject* subclass);

inline CacheBase* as_cache(PyObject* o) { return reinterpret_cast<CacheBase*>(o); }

// The flow, or nullptr with an exception: not initialised.
PyFlow* flow_of(CacheBase* cache);

// [0, 1). xorshift: spreads deadlines, protects nothing.
inline double next_random(CacheBase* cache) noexcept {
  std::uint64_t x = cache->random_state;
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  cache->random_state = x;
  return static_cast<double>(x >> 11) * 0x1.0p-53;
}

void release_dead_slow(PyFlow* flow);

inline void release_dead(PyFlow* flow) {
  if (flow->memory().has_dead()) release_dead_slow(flow);
}

// A probe for a text key of a scope.
bool text_probe(CacheBase* cache, ScopeId scope, PyObject* const* key, Probe& probe);

// A probe for a key as an entry or flight stores it (see Traits): text, other single item, or tuple of items.
bool stored_probe(CacheBase* cache, ScopeId scope, PyObject* const* key, Probe& probe);

}  // namespace stillwarm::py
