#include "bindings/retried_call.hpp"

#include <pybind11/pybind11.h>
#include <structmember.h>

#include "core/base/clock.hpp"

namespace stillwarm::py {

RetryHooks retry_hooks{};

std::uint64_t next_tick() noexcept {
  static std::uint64_t last = 0;
  return ++last;
}

PyObject* recover(const RetriedCall* c, PyObject* const* values, Py_ssize_t nargs, PyObject* kwnames,
                  const FirstAttempt& first) {
  // Ctrl-C, cancellation and the end of the interpreter are nobody's to retry.
  if (!PyErr_ExceptionMatches(PyExc_Exception)) return nullptr;
  PyObject *type = nullptr, *error = nullptr, *traceback = nullptr;
  PyErr_Fetch(&type, &error, &traceback);
  PyErr_NormalizeException(&type, &error, &traceback);
  if (traceback != nullptr) PyException_SetTraceback(error, traceback);
  const Py_ssize_t keywords = kwnames == nullptr ? 0 : PyTuple_GET_SIZE(kwnames);
  PyObject* args = PyTuple_New(nargs);
  PyObject* kwargs = PyDict_New();
  PyObject* began = PyLong_FromLongLong(first.began);
  PyObject* tick = PyLong_FromUnsignedLongLong(first.tick);
  PyObject* result = nullptr;
  if (args != nullptr && kwargs != nullptr && began != nullptr && tick != nullptr) {
    for (Py_ssize_t i = 0; i < nargs; ++i) PyTuple_SET_ITEM(args, i, Py_NewRef(values[i]));
    bool ok = true;
    for (Py_ssize_t k = 0; ok && k < keywords; ++k) {
      ok = PyDict_SetItem(kwargs, PyTuple_GET_ITEM(kwnames, k), values[nargs + k]) == 0;
    }
    if (ok) {
      PyObject* to[] = {nullptr, c->policy, c->function, args, kwargs, error, began, tick};
      result = PyObject_Vectorcall(c->is_async ? retry_hooks.arecover : retry_hooks.recover, to + 1,
                                   7 | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr);
    }
  }
  Py_XDECREF(args);
  Py_XDECREF(kwargs);
  Py_XDECREF(began);
  Py_XDECREF(tick);
  if (result == retry_hooks.raise_it) {
    Py_DECREF(result);
    PyErr_Restore(type, error, traceback);  // as it was raised
    return nullptr;
  }
  // Before the wait: the locals of the frames that failed must not live through it.
  Py_XDECREF(type);
  Py_XDECREF(error);
  Py_XDECREF(traceback);
  if (result == nullptr || c->is_async) return result;
  PyObject* value = PyObject_CallNoArgs(result);
  Py_DECREF(result);
  return value;
}

namespace {

RetriedCall* as_retried(PyObject* o) { return reinterpret_cast<RetriedCall*>(o); }

// A coroutine, or what stands for one (that of a cached or a retried function); not a generator.
bool is_coroutine(PyObject* result) {
  const PyAsyncMethods* async = Py_TYPE(result)->tp_as_async;
  return async != nullptr && async->am_send != nullptr && async->am_await != nullptr;
}

// A plain function that returns one has done nothing yet: what fails, fails when it is awaited, out of reach.
PyObject* refuse_coroutine(const RetriedCall* c, PyObject* result) {
  PyObject* closed = PyObject_CallMethod(result, "close", nullptr);
  Py_XDECREF(closed);
  Py_DECREF(result);
  if (closed != nullptr) {
    PyErr_Format(PyExc_TypeError,
                 "%R returned a coroutine, and was no coroutine function when it was decorated: put @retry on the "
                 "coroutine function itself",
                 c->function);
  }
  return nullptr;
}

PyObject* call_plain(PyObject* self, PyObject* const* args, std::size_t nargsf, PyObject* kwnames) {
  const RetriedCall* c = as_retried(self);
  const FirstAttempt first{Clock::now(), next_tick()};
  c->core->begun();
  PyObject* result = PyObject_Vectorcall(c->function, args, nargsf, kwnames);
  if (result == nullptr) return recover(c, args, PyVectorcall_NARGS(nargsf), kwnames, first);
  if (is_coroutine(result)) return refuse_coroutine(c, result);
  c->core->succeeded();
  return result;
}

PyObject* call_async(PyObject* self, PyObject* const* args, std::size_t nargsf, PyObject* kwnames) {
  RetriedCall* c = as_retried(self);
  PyObject* inner = PyObject_Vectorcall(c->function, args, nargsf, kwnames);  // runs nothing yet
  if (inner == nullptr) return nullptr;
  const PyAsyncMethods* async = Py_TYPE(inner)->tp_as_async;
  if (async == nullptr || async->am_send == nullptr) {  // an awaitable that is no coroutine
    PyObject* iterator = PyObject_CallMethod(inner, "__await__", nullptr);
    Py_DECREF(inner);
    if (iterator == nullptr) return nullptr;
    inner = iterator;
  }
  return make_retried_await(c, inner, args, PyVectorcall_NARGS(nargsf), kwnames);
}

PyObject* retried_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static const char* names[] = {"function", "policy", "core", "is_async", nullptr};
  PyObject *function = nullptr, *policy = nullptr, *core = nullptr;
  int is_async = 0;
  if (PyArg_ParseTupleAndKeywords(args, kwargs, "OOOp", const_cast<char**>(names), &function, &policy, &core,
                                  &is_async) == 0) {
    return nullptr;
  }
  const RetryPolicy* figures = nullptr;
  try {
    figures = pybind11::handle(core).cast<const RetryPolicy*>();
  } catch (const std::exception&) {  // of another type
  }
  if (figures == nullptr || PyCallable_Check(function) == 0) {
    PyErr_SetString(PyExc_TypeError, "RetriedCall: a callable, a Retry and its RetryPolicy");
    return nullptr;
  }
  PyObject* self = type->tp_alloc(type, 0);
  if (self == nullptr) return nullptr;
  RetriedCall* c = as_retried(self);
  c->vectorcall = is_async != 0 ? call_async : call_plain;
  c->function = Py_NewRef(function);
  c->policy = Py_NewRef(policy);
  c->holder = Py_NewRef(core);
  c->core = figures;
  c->is_async = is_async != 0;
  return self;
}

int retried_traverse(PyObject* self, visitproc visit, void* arg) {
  RetriedCall* c = as_retried(self);
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(c->function);
  Py_VISIT(c->policy);
  Py_VISIT(c->holder);
  Py_VISIT(c->dict);
  return 0;
}

// The function and the policy stay until the end: a call may still come from a finalizer.
int retried_clear(PyObject* self) {
  Py_CLEAR(as_retried(self)->dict);
  return 0;
}

void retried_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  RetriedCall* c = as_retried(self);
  if (c->weakrefs != nullptr) PyObject_ClearWeakRefs(self);
  Py_CLEAR(c->dict);
  Py_CLEAR(c->function);
  Py_CLEAR(c->policy);
  Py_CLEAR(c->holder);
  PyTypeObject* type = Py_TYPE(self);
  type->tp_free(self);
  Py_DECREF(type);
}

PyObject* retried_descr_get(PyObject* self, PyObject* object, PyObject*) {
  return object == nullptr || object == Py_None ? Py_NewRef(self) : PyMethod_New(self, object);
}

PyObject* retried_repr(PyObject* self) { return PyUnicode_FromFormat("<retried %R>", as_retried(self)->function); }

PyObject* get_policy(PyObject* self, void*) { return Py_NewRef(as_retried(self)->policy); }

// Pickled by name, and copied as itself, as functions are.
PyObject* retried_reduce(PyObject* self, PyObject*) { return PyObject_GetAttrString(self, "__qualname__"); }
PyObject* retried_copy(PyObject* self, PyObject*) { return Py_NewRef(self); }

PyMethodDef retried_methods[] = {{"__reduce__", retried_reduce, METH_NOARGS, nullptr},
                                 {"__copy__", retried_copy, METH_NOARGS, nullptr},
                                 {"__deepcopy__", retried_copy, METH_O, nullptr},
                                 {nullptr, nullptr, 0, nullptr}};

PyGetSetDef retried_getset[] = {{"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, nullptr, nullptr},
                                {"policy", get_policy, nullptr, "The Retry.", nullptr},
                                {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyMemberDef retried_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(RetriedCall, vectorcall), READONLY, nullptr},
    {"__dictoffset__", T_PYSSIZET, offsetof(RetriedCall, dict), READONLY, nullptr},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(RetriedCall, weakrefs), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr}};

PyType_Slot retried_slots[] = {{Py_tp_new, reinterpret_cast<void*>(retried_new)},
                               {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
                               {Py_tp_descr_get, reinterpret_cast<void*>(retried_descr_get)},
                               {Py_tp_repr, reinterpret_cast<void*>(retried_repr)},
                               {Py_tp_methods, retried_methods},
                               {Py_tp_getset, retried_getset},
                               {Py_tp_members, retried_members},
                               {Py_tp_traverse, reinterpret_cast<void*>(retried_traverse)},
                               {Py_tp_clear, reinterpret_cast<void*>(retried_clear)},
                               {Py_tp_dealloc, reinterpret_cast<void*>(retried_dealloc)},
                               {0, nullptr}};

PyType_Spec retried_spec = {
    "stillwarm._core.RetriedCall", sizeof(RetriedCall), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR, retried_slots};

}  // namespace

bool add_retried_call(PyObject* module) {
  PyObject* type = PyType_FromSpec(&retried_spec);
  const bool added = type != nullptr && PyModule_AddObjectRef(module, "RetriedCall", type) == 0;
  Py_XDECREF(type);
  return added && add_retried_await(module);
}

}  // namespace stillwarm::py
