// The object behind @cached: a raw heap type whose call is a look-up.
//
// Thread rule: with the GIL.
// Refuses to know: everything that takes longer than a plain load on the caller's own thread. That goes to Python:
// _load.perform for plain functions, _aload.perform for coroutine functions.
#pragma once

#include "bindings/call_key.hpp"
#include "bindings/flight.hpp"

namespace stillwarm::py {

struct CachedCall {
  PyObject_HEAD vectorcallfunc vectorcall;
  PyObject* function;
  PyObject* cache;       // CacheBase
  Signature* signature;  // owned
  PyObject* key;         // key= callable, or nullptr
  PyObject* dict;
  PyObject* weakrefs;
  PyFlow* flow;  // of `cache`
  Stats* stats;  // of the scope
  std::uint64_t salt;
  ScopeId scope;
  Py_ssize_t arity;  // of calls that take the short way; -1: none do; -2: all calls go to Python
  bool is_async;
  bool plain;  // a load needs nothing but a call of the function
};

inline CachedCall* as_call(PyObject* o) { return reinterpret_cast<CachedCall*>(o); }

inline Probe probe_for(const CachedCall* c, PyObject* const* items, Py_ssize_t count, std::uint64_t hash) {
  const Scope& scope = c->flow->scopes()[c->scope];
  return {hash, c->scope, scope.shares ? &c->flow->scopes() : nullptr, items, count};
}

// The vectorcall of the type.
PyObject* call(PyObject* self, PyObject* const* args, std::size_t nargsf, PyObject* kwnames);

// The row of a call's key and its hash. False: an exception is set, or the arguments do not fit the signature
// (`misfit`).
bool make_row(CachedCall* c, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames, KeyRow& row,
              std::uint64_t& hash, bool& misfit);

// Creates the type (cached_type.cpp) and adds it to the module.
bool add_cached_call(PyObject* module);

// What the Python side gives: perform(call, args, kwargs) for each world, failed(call, flight, error), commit(call,
// flight, value) -> the load's value, wake(waiters), the object that `failed` returns for "raise it", drain(cache), and
// count_elsewhere(flight) for a hit of what memory could not keep.
struct Hooks {
  PyObject* perform;
  PyObject* aperform;
  PyObject* failed;
  PyObject* commit;
  PyObject* wake;
  PyObject* raise_it;
  PyObject* drain;
  PyObject* count_elsewhere;
};
extern Hooks hooks;
extern PyObject* missing;  // stands for "no value"

// The steps of decision.hpp as Python has them, and more: for a stale value, an early refresh, and where the remote
// tier has to be asked first.
struct PythonStep {
  static constexpr int kReturn = 0, kLead = 2, kFollow = 3, kReturnStale = 5, kRefreshEarly = 6, kConfirm = 7;
};

// (step, value or MISSING, flight or None): where a call goes; see PythonStep. `count` is false when it asks again.
// `anew`: it wants a load whatever is stored. `asked`: whether the tier was asked, and did not answer.
PyObject* begin(CacheBase* cache, const Probe& probe, bool count, bool anew = false, Asked asked = Asked::kNot);

// Wakes the waiters of a flight that landed; steals the list, never fails.
void wake(PyObject* waiters);

}  // namespace stillwarm::py
