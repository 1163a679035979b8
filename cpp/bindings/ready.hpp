// The awaitable of a hit: it is done before it is awaited, so that no coroutine is made and no loop is asked.
//
// Thread rule: with the GIL.
// Refuses to know: where the value comes from.
//
// It behaves like a coroutine that returns at its first step: send, throw, close, __await__; a second await raises
// RuntimeError. asyncio takes it wherever it takes a coroutine (collections.abc.Coroutine matches by these methods).
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

namespace stillwarm::py {

// Creates the type and adds it to the module. False with an exception.
bool add_ready(PyObject* module);

// A new awaitable that takes `value` (a new reference), also on failure.
PyObject* make_ready(PyObject* value);

// Ends a step the way generators do: nullptr with StopIteration, which carries the value. Takes `value`; nullptr with
// an exception passes.
PyObject* stop_with(PyObject* value);

}  // namespace stillwarm::py
