#include "bindings/flight_waiters.hpp"

namespace stillwarm::py {

static PyObject* release_name = nullptr;
static PyObject* popitem_name = nullptr;

namespace {

constexpr int kRelays = 2;

// One of the locks, out of the dict: a new reference. The newest, or any where there is no memory for popitem's tuple.
PyObject* take_sleeper(PyObject* sleepers, bool& passes_on) {
  PyObject *lock = nullptr, *mark = nullptr;
  PyObject* item = PyObject_CallMethodNoArgs(sleepers, popitem_name);
  if (item != nullptr) {
    lock = Py_NewRef(PyTuple_GET_ITEM(item, 0));
    passes_on = PyTuple_GET_ITEM(item, 1) == Py_True;
    Py_DECREF(item);
    return lock;
  }
  PyErr_Clear();
  Py_ssize_t at = 0;
  if (!PyDict_Next(sleepers, &at, &lock, &mark)) return nullptr;
  Py_INCREF(lock);
  passes_on = mark == Py_True;
  if (PyDict_DelItem(sleepers, lock) != 0) Py_CLEAR(lock);
  return lock;
}

// Wakes one thread, and more as long as one of them cannot pass it on. No exception may be set.
void wake_next(PyFlight* f) {
  while (f->sleepers != nullptr && PyDict_GET_SIZE(f->sleepers) > 0) {
    bool passes_on = false;
    PyObject* lock = take_sleeper(f->sleepers, passes_on);
    PyObject* released = lock == nullptr ? nullptr : PyObject_CallMethodNoArgs(lock, release_name);
    if (released == nullptr) PyErr_WriteUnraisable(reinterpret_cast<PyObject*>(f));
    Py_XDECREF(released);
    Py_XDECREF(lock);
    if (passes_on || lock == nullptr) return;
  }
}

// Whether the flight still runs: then `waiters` is there, `fresh` if need be. Making that may have run anything.
bool takes_waiters(const PyFlight* f, PyObject*& waiters, PyObject* fresh) {
  const bool runs = f->state == FlightState::kRunning;
  if (runs && waiters == nullptr) {
    waiters = fresh;
  } else {
    Py_XDECREF(fresh);
  }
  return runs;
}

}  // namespace

bool add_waiters() {
  release_name = PyUnicode_InternFromString("release");
  popitem_name = PyUnicode_InternFromString("popitem");
  return release_name != nullptr && popitem_name != nullptr;
}

void wake_first(PyFlight* f) {
  for (int i = 0; i < kRelays; ++i) wake_next(f);
}

// sleep_with(lock, passes_on): True if the flight still runs and the lock will be released when it lands.
PyObject* flight_sleep_with(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  PyFlight* f = as_flight(self);
  if (count != 2 || !PyBool_Check(args[1])) {
    PyErr_SetString(PyExc_TypeError, "sleep_with(lock, passes_on)");
    return nullptr;
  }
  PyObject* fresh = f->sleepers == nullptr ? PyDict_New() : nullptr;  // may run the collector
  if (PyErr_Occurred() != nullptr) return nullptr;
  if (!takes_waiters(f, f->sleepers, fresh)) Py_RETURN_FALSE;
  if (PyDict_SetItem(f->sleepers, args[0], args[1]) != 0) return nullptr;
  Py_RETURN_TRUE;
}

// left(lock): its thread waits no longer. If it was woken, the next one is.
PyObject* flight_left(PyObject* self, PyObject* lock) {
  PyFlight* f = as_flight(self);
  if (f->sleepers == nullptr) Py_RETURN_NONE;
  const int asleep = PyDict_Contains(f->sleepers, lock);
  if (asleep < 0) return nullptr;
  if (asleep == 1) {  // it gave up before it was woken
    if (PyDict_DelItem(f->sleepers, lock) != 0) return nullptr;
  } else if (f->state != FlightState::kRunning) {
    wake_next(f);
  }
  Py_RETURN_NONE;
}

// wait_with(waiter): True if the flight still runs and _landing.wake will get the waiter.
PyObject* flight_wait_with(PyObject* self, PyObject* waiter) {
  PyFlight* f = as_flight(self);
  PyObject* fresh = f->tasks == nullptr ? PyList_New(0) : nullptr;  // may run the collector
  if (PyErr_Occurred() != nullptr) return nullptr;
  if (!takes_waiters(f, f->tasks, fresh)) Py_RETURN_FALSE;
  if (PyList_Append(f->tasks, waiter) != 0) return nullptr;
  Py_RETURN_TRUE;
}

}  // namespace stillwarm::py
