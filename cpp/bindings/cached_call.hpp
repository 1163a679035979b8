// The object behind @cached: a raw heap type whose call is a look-up.
//
// Thread rule: with the GIL.
// Refuses to know: everything that takes longer than a plain load on the caller's own thread. That goes to Python:
// _load.perform for plain functions, _aload.perform for coroutine functions.
#pragma once

#include "bindings/call_key.hpp"
#include "bindings/flight.hpp"

namespace stillwarm::py {

extern PyTypeObject* cached_call_type;
bool add_cached_call(PyObject* module);

// What the Python side gives: perform(call, args, kwargs) for each world, failed(call, flight, error), commit(call,
// flight, value), wake(waiters), and the object that `failed` returns for "raise it".
struct Hooks {
  PyObject* perform;
  PyObject* aperform;
  PyObject* failed;
  PyObject* commit;
  PyObject* wake;
  PyObject* raise_it;
};
extern Hooks hooks;
extern PyObject* missing;  // stands for "no value"

// (step, value or MISSING, flight or None): where a call goes; the step as in flow.hpp, 5 and 6 for a stale value and an
// early refresh. `count` is false when it asks again.
PyObject* begin(CacheBase* cache, const Probe& probe, bool count);

// Wakes the waiters of a flight that landed; steals the list, never fails.
void wake(PyObject* waiters);

}  // namespace stillwarm::py
