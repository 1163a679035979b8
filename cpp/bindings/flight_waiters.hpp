// Who waits for a flight: threads, which are woken as a relay, and tasks.
//
// Thread rule: with the GIL.
// Refuses to know: what a flight brought, and who runs it.
//
// Threads are woken as a relay: `wake_first` wakes kRelays of them, and each wakes one more when it is done waiting
// (`left`). Woken all at once they would queue for the GIL: 10,000 of them took 40 s, as a relay 0.7 s. The main thread
// does not carry the relay, since Ctrl-C could make it drop it: whoever wakes it wakes the next one too.
#pragma once

#include "bindings/flight.hpp"

namespace stillwarm::py {

bool add_waiters();

// The flight has landed. No exception may be set.
void wake_first(PyFlight* f);

// Methods of a Flight.
PyObject* flight_sleep_with(PyObject* self, PyObject* const* args, Py_ssize_t count);
PyObject* flight_left(PyObject* self, PyObject* lock);
PyObject* flight_wait_with(PyObject* self, PyObject* waiter);

}  // namespace stillwarm::py
