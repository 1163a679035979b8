#include "bindings/ready.hpp"

#include <structmember.h>

namespace stillwarm::py {
namespace {

struct Ready {
  PyObject_HEAD PyObject* value;  // nullptr once it was awaited
};

PyTypeObject* ready_type = nullptr;

// Awaited objects die at once: a few are kept for the next hit.
constexpr int kMostSpareReady = 8;
Ready* spare_ready[kMostSpareReady];
int spare_ready_count = 0;

PyObject* take(Ready* r) {
  PyObject* value = r->value;
  r->value = nullptr;
  if (value == nullptr) PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited result of a cached call");
  return value;
}

PySendResult ready_am_send(PyObject* self, PyObject*, PyObject** result) {
  *result = take(reinterpret_cast<Ready*>(self));
  return *result == nullptr ? PYGEN_ERROR : PYGEN_RETURN;
}

PyObject* ready_next(PyObject* self) { return stop_with(take(reinterpret_cast<Ready*>(self))); }

PyObject* ready_send(PyObject* self, PyObject*) { return ready_next(self); }

PyObject* ready_throw(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  Py_CLEAR(reinterpret_cast<Ready*>(self)->value);
  if (count < 1 || count > 3) {
    PyErr_Format(PyExc_TypeError, "throw() takes 1 to 3 arguments (%zd given)", count);
    return nullptr;
  }
  if (PyExceptionInstance_Check(args[0])) {
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(args[0])), args[0]);
  } else if (PyExceptionClass_Check(args[0])) {
    PyErr_SetObject(args[0], count > 1 ? args[1] : nullptr);
  } else {
    PyErr_SetString(PyExc_TypeError, "exceptions must be classes or instances deriving from BaseException");
  }
  return nullptr;
}

PyObject* ready_close(PyObject* self, PyObject*) {
  Py_CLEAR(reinterpret_cast<Ready*>(self)->value);
  Py_RETURN_NONE;
}

PyObject* ready_repr(PyObject* self) {
  return PyUnicode_FromFormat("<stillwarm hit, %s>", reinterpret_cast<Ready*>(self)->value ? "ready" : "awaited");
}

int ready_traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(reinterpret_cast<Ready*>(self)->value);
  return 0;
}

int ready_clear(PyObject* self) {
  Py_CLEAR(reinterpret_cast<Ready*>(self)->value);
  return 0;
}

void ready_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  auto* r = reinterpret_cast<Ready*>(self);
  Py_CLEAR(r->value);
  if (spare_ready_count < kMostSpareReady) {
    spare_ready[spare_ready_count++] = r;
    return;
  }
  PyTypeObject* type = Py_TYPE(self);
  PyObject_GC_Del(self);
  Py_DECREF(type);
}

PyMethodDef ready_methods[] = {{"send", ready_send, METH_O, "Ends with StopIteration(value)."},
                               {"throw", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(ready_throw)),
                                METH_FASTCALL, "Raises what is given."},
                               {"close", ready_close, METH_NOARGS, "Forgets the value."},
                               {nullptr, nullptr, 0, nullptr}};

PyType_Slot ready_slots[] = {{Py_am_await, reinterpret_cast<void*>(PyObject_SelfIter)},
                             {Py_am_send, reinterpret_cast<void*>(ready_am_send)},
                             {Py_tp_iter, reinterpret_cast<void*>(PyObject_SelfIter)},
                             {Py_tp_iternext, reinterpret_cast<void*>(ready_next)},
                             {Py_tp_repr, reinterpret_cast<void*>(ready_repr)},
                             {Py_tp_methods, ready_methods},
                             {Py_tp_traverse, reinterpret_cast<void*>(ready_traverse)},
                             {Py_tp_clear, reinterpret_cast<void*>(ready_clear)},
                             {Py_tp_dealloc, reinterpret_cast<void*>(ready_dealloc)},
                             {Py_tp_doc, const_cast<char*>("The awaitable of a cache hit: already done.")},
                             {0, nullptr}};

PyType_Spec ready_spec = {"stillwarm._core.Ready", sizeof(Ready), 0,
                          Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION, ready_slots};

}  // namespace

bool add_ready(PyObject* module) {
  ready_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&ready_spec));
  return ready_type != nullptr && PyModule_AddObjectRef(module, "Ready", reinterpret_cast<PyObject*>(ready_type)) == 0;
}

PyObject* stop_with(PyObject* value) {
  if (value == nullptr) return nullptr;
  PyObject* stop = PyObject_CallOneArg(PyExc_StopIteration, value);
  Py_DECREF(value);
  if (stop != nullptr) {
    PyErr_SetObject(PyExc_StopIteration, stop);
    Py_DECREF(stop);
  }
  return nullptr;
}

PyObject* make_ready(PyObject* value) {
  Ready* r = nullptr;
  if (spare_ready_count > 0) {
    r = spare_ready[--spare_ready_count];
    _Py_NewReference(reinterpret_cast<PyObject*>(r));
  } else {
    r = PyObject_GC_New(Ready, ready_type);
    if (r == nullptr) {
      Py_DECREF(value);
      return nullptr;
    }
  }
  r->value = value;
  // Only a value that may hold references can close a cycle; tracking costs more than the rest of a hit.
  if (PyType_IS_GC(Py_TYPE(value))) PyObject_GC_Track(r);
  return reinterpret_cast<PyObject*>(r);
}

}  // namespace stillwarm::py
