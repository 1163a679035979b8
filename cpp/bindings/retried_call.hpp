// The object behind @retry: a raw heap type whose call costs almost nothing as long as it succeeds.
//
// Thread rule: with the GIL; an awaitable belongs to the task that awaits it.
// Refuses to know: which errors are retried, how long to wait, and waiting. After the first failure Python goes on
// (_retried.py), which asks the core (core/retry/attempt.hpp).
//
// Nested retries: every attempt takes a tick when it begins, and an error that a policy gives up on gets one. An outer
// policy that meets an error with a younger tick than its own attempt's knows that an inner one has tried already.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstdint>

#include "core/base/entry.hpp"
#include "core/retry/attempt.hpp"

namespace stillwarm::py {

struct RetriedCall {
  PyObject_HEAD vectorcallfunc vectorcall;
  PyObject* function;
  PyObject* policy;         // the Retry
  PyObject* holder;         // owns `core`
  const RetryPolicy* core;  // the figures of the policy
  PyObject* dict;
  PyObject* weakrefs;
  bool is_async;
};

// What one call was, for the Python side after its first attempt failed.
struct FirstAttempt {
  Nanos began;
  std::uint64_t tick;
};

// What the Python side gives: recover(policy, function, args, kwargs, error, began, tick) for each world; it returns
// what goes on (a callable without arguments, or a coroutine), or `raise_it`.
struct RetryHooks {
  PyObject* recover;
  PyObject* arecover;
  PyObject* raise_it;
};
extern RetryHooks retry_hooks;

std::uint64_t next_tick() noexcept;

// Whether the error that is set may be retried: the result of the hook, or nullptr with the error as it was. `values`:
// positional and then keyword values, as in a vectorcall.
PyObject* recover(const RetriedCall* c, PyObject* const* values, Py_ssize_t nargs, PyObject* kwnames,
                  const FirstAttempt& first);

// An awaitable of `inner`, which is stolen, also on failure (retried_await.cpp).
PyObject* make_retried_await(RetriedCall* c, PyObject* inner, PyObject* const* values, Py_ssize_t nargs,
                             PyObject* kwnames);

// Create the types and add them to the module. False with an exception.
bool add_retried_call(PyObject* module);
bool add_retried_await(PyObject* module);

}  // namespace stillwarm::py
