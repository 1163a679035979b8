// The awaitable of a retried coroutine: passes on what its coroutine does, until that fails.
//
// Thread rule: with the GIL; belongs to the task that awaits it.
// Refuses to know: as retried_call.hpp.
//
// It behaves as the coroutine itself: send, throw, close, __await__. When the first attempt fails, its place is taken
// by a coroutine that waits and tries again; from then on this only passes through.
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include "bindings/ready.hpp"
#include "bindings/retried_call.hpp"
#include "core/base/clock.hpp"

namespace stillwarm::py {
namespace {

struct RetriedAwait {
  PyObject_HEAD RetriedCall* call;
  PyObject* inner;    // the coroutine that runs; nullptr at the end
  PyObject* values;   // arguments of the call, for its next attempt; nullptr after the first
  PyObject* kwnames;  // or nullptr
  FirstAttempt first;
  bool begun;
  bool running;
  bool awaited;
};

PyTypeObject* await_type = nullptr;

RetriedAwait* as_await(PyObject* o) { return reinterpret_cast<RetriedAwait*>(o); }

// Its coroutine has ended. Keeps the error that is set.
void finish(RetriedAwait* r) {
  PyObject *type = nullptr, *error = nullptr, *traceback = nullptr;
  PyErr_Fetch(&type, &error, &traceback);
  Py_CLEAR(r->inner);
  Py_CLEAR(r->values);
  Py_CLEAR(r->kwnames);
  PyErr_Restore(type, error, traceback);
}

bool may_step(RetriedAwait* r) {
  if (r->inner != nullptr && !r->running) {
    if (!r->begun) {
      r->begun = true;
      r->first = {Clock::now(), next_tick()};
      r->call->core->begun();
    }
    return true;
  }
  PyErr_SetString(r->running ? PyExc_ValueError : PyExc_RuntimeError,
                  r->running ? "a retried call is already executing" : "cannot reuse already awaited retried call");
  return false;
}

PySendResult step(RetriedAwait* r, PyObject* value, PyObject** result);

// The coroutine has returned, or failed with the error that is set.
PySendResult ended(RetriedAwait* r, PySendResult how, PyObject** result) {
  PyObject* again = nullptr;
  if (r->values == nullptr) {  // this was no first attempt: Python counts
  } else if (how == PYGEN_RETURN) {
    r->call->core->succeeded();
  } else {
    const Py_ssize_t keywords = r->kwnames == nullptr ? 0 : PyTuple_GET_SIZE(r->kwnames);
    PyObject* const* values = &PyTuple_GET_ITEM(r->values, 0);
    again = recover(r->call, values, PyTuple_GET_SIZE(r->values) - keywords, r->kwnames, r->first);
  }
  finish(r);
  if (again == nullptr) return how;
  r->inner = again;
  return step(r, Py_None, result);
}

PySendResult step(RetriedAwait* r, PyObject* value, PyObject** result) {
  r->running = true;
  const PySendResult how = PyIter_Send(r->inner, value, result);
  r->running = false;
  return how == PYGEN_NEXT ? how : ended(r, how, result);
}

// A result of a step as a method gives it: what was yielded, or StopIteration with what was returned.
PyObject* as_method(PySendResult how, PyObject* result) {
  if (how == PYGEN_NEXT) return result;
  return how == PYGEN_RETURN ? stop_with(result) : nullptr;
}

PySendResult await_am_send(PyObject* self, PyObject* value, PyObject** result) {
  *result = nullptr;
  return may_step(as_await(self)) ? step(as_await(self), value, result) : PYGEN_ERROR;
}

PyObject* await_send(PyObject* self, PyObject* value) {
  PyObject* result = nullptr;
  const PySendResult how = await_am_send(self, value, &result);
  return as_method(how, result);
}

PyObject* await_next(PyObject* self) { return await_send(self, Py_None); }

PyObject* await_await(PyObject* self) {
  if (as_await(self)->awaited) {
    PyErr_SetString(PyExc_RuntimeError, "a retried call is being awaited already");
    return nullptr;
  }
  as_await(self)->awaited = true;
  return Py_NewRef(self);
}

PyObject* await_throw(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  RetriedAwait* r = as_await(self);
  if (!may_step(r)) return nullptr;
  PyObject* name = PyUnicode_InternFromString("throw");
  PyObject* to[4] = {r->inner};
  if (name == nullptr || count < 1 || count > 3) {
    if (name != nullptr) PyErr_Format(PyExc_TypeError, "throw() takes 1 to 3 arguments (%zd given)", count);
    Py_XDECREF(name);
    return nullptr;
  }
  for (Py_ssize_t i = 0; i < count; ++i) to[i + 1] = args[i];
  r->running = true;
  PyObject* result = PyObject_VectorcallMethod(name, to, static_cast<std::size_t>(count + 1), nullptr);
  r->running = false;
  Py_DECREF(name);
  if (result != nullptr) return result;
  if (PyErr_ExceptionMatches(PyExc_StopIteration)) {  // it returned
    ended(r, PYGEN_RETURN, &result);
    return nullptr;
  }
  const PySendResult how = ended(r, PYGEN_ERROR, &result);
  return as_method(how, result);
}

PyObject* await_close(PyObject* self, PyObject*) {
  RetriedAwait* r = as_await(self);
  if (r->running) {
    PyErr_SetString(PyExc_ValueError, "a retried call is already executing");
    return nullptr;
  }
  PyObject* closed = r->inner == nullptr ? Py_NewRef(Py_None) : PyObject_CallMethod(r->inner, "close", nullptr);
  finish(r);
  return closed;
}

PyObject* await_repr(PyObject* self) {
  return PyUnicode_FromFormat("<retried call of %R>", as_await(self)->call->function);
}

int await_traverse(PyObject* self, visitproc visit, void* arg) {
  RetriedAwait* r = as_await(self);
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(r->call);
  Py_VISIT(r->inner);
  Py_VISIT(r->values);
  return 0;
}

int await_clear(PyObject* self) {
  RetriedAwait* r = as_await(self);
  Py_CLEAR(r->inner);
  Py_CLEAR(r->values);
  return 0;
}

void await_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  RetriedAwait* r = as_await(self);
  finish(r);
  Py_CLEAR(r->call);
  PyTypeObject* type = Py_TYPE(self);
  PyObject_GC_Del(self);
  Py_DECREF(type);
}

PyMethodDef await_methods[] = {
    {"send", await_send, METH_O, "As a coroutine's."},
    {"throw", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(await_throw)), METH_FASTCALL, "As a coroutine's."},
    {"close", await_close, METH_NOARGS, "As a coroutine's."},
    {nullptr, nullptr, 0, nullptr}};

PyMemberDef await_members[] = {{"cr_await", T_OBJECT, offsetof(RetriedAwait, inner), READONLY, "What runs, or None."},
                               {nullptr, 0, 0, 0, nullptr}};

PyType_Slot await_slots[] = {{Py_am_await, reinterpret_cast<void*>(await_await)},
                             {Py_am_send, reinterpret_cast<void*>(await_am_send)},
                             {Py_tp_iter, reinterpret_cast<void*>(PyObject_SelfIter)},
                             {Py_tp_iternext, reinterpret_cast<void*>(await_next)},
                             {Py_tp_repr, reinterpret_cast<void*>(await_repr)},
                             {Py_tp_methods, await_methods},
                             {Py_tp_members, await_members},
                             {Py_tp_traverse, reinterpret_cast<void*>(await_traverse)},
                             {Py_tp_clear, reinterpret_cast<void*>(await_clear)},
                             {Py_tp_dealloc, reinterpret_cast<void*>(await_dealloc)},
                             {Py_tp_doc, const_cast<char*>("The awaitable of a retried call.")},
                             {0, nullptr}};

PyType_Spec await_spec = {"stillwarm._core.RetriedAwait", sizeof(RetriedAwait), 0,
                          Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION, await_slots};

}  // namespace

bool add_retried_await(PyObject* module) {
  await_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&await_spec));
  return await_type != nullptr &&
         PyModule_AddObjectRef(module, "RetriedAwait", reinterpret_cast<PyObject*>(await_type)) == 0;
}

PyObject* make_retried_await(RetriedCall* c, PyObject* inner, PyObject* const* values, Py_ssize_t nargs,
                             PyObject* kwnames) {
  const Py_ssize_t count = nargs + (kwnames == nullptr ? 0 : PyTuple_GET_SIZE(kwnames));
  PyObject* kept = PyTuple_New(count);
  RetriedAwait* r = kept == nullptr ? nullptr : PyObject_GC_New(RetriedAwait, await_type);
  if (r == nullptr) {
    Py_XDECREF(kept);
    Py_DECREF(inner);
    return nullptr;
  }
  for (Py_ssize_t i = 0; i < count; ++i) PyTuple_SET_ITEM(kept, i, Py_NewRef(values[i]));
  r->call = reinterpret_cast<RetriedCall*>(Py_NewRef(reinterpret_cast<PyObject*>(c)));
  r->inner = inner;
  r->values = kept;
  r->kwnames = Py_XNewRef(kwnames);
  r->first = {};
  r->begun = r->running = r->awaited = false;
  PyObject_GC_Track(r);
  return reinterpret_cast<PyObject*>(r);
}

}  // namespace stillwarm::py
