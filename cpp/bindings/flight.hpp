// A flight as Python sees it: one running load, what it brought, and who waits for it.
//
// Thread rule: with the GIL.
// Refuses to know: how anybody waits. It keeps the waiters' objects: a thread's lock, which it releases, or a tuple,
// which _landing.wake understands (flight_waiters.hpp).
//
//   stale: the load failed, and the value that was there stands in for the error; remote: the value needed no load
//   running --succeed--> value     --fail--> error     --abandon--> abandoned (the waiters look again: one of them
//   leads)
#pragma once

#include "bindings/cache_base.hpp"

namespace pybind11 {
class handle;
}

namespace stillwarm::py {

// Whether the load waits for somebody to begin it: a thread of the pool, or one of them that needs its value.
enum class Offer : std::uint8_t { kNone, kPlain, kAnew };

enum class FlightState : std::uint8_t { kRunning, kValue, kError, kAbandoned, kStale, kRemote };

struct PyFlight {
  PyObject_HEAD Flight flight;  // placement-constructed
  PyObject* cache;              // CacheBase, owned
  PyObject* key;                // owned; flight.key borrows it
  PyObject* value;
  PyObject* error;
  PyObject* tasks;       // those that wait, for _landing.wake: list or nullptr
  PyObject* sleepers;    // threads that wait: dict of their locks (value: may it pass the wake-up on?), or nullptr
  PyObject* load;        // what current_load() made, or nullptr
  PyObject* loop;        // the asyncio loop that runs the load, or nullptr
  unsigned long thread;  // the one that has to run the load, or runs it; 0: a loop or the pool will
  FlightState state;
  Offer offer;
};

extern PyTypeObject* flight_type;
bool add_flight(PyObject* module);

inline PyFlight* as_flight(PyObject* o) { return reinterpret_cast<PyFlight*>(o); }
PyFlight* flight_of(pybind11::handle o);  // throws pybind11::type_error: it is none
inline PyFlight* owner_of(Flight* f) {
  return reinterpret_cast<PyFlight*>(reinterpret_cast<char*>(f) - offsetof(PyFlight, flight));
}

// A flight that has not started. `key` is taken, also on failure. Runs no Python code. The collector does not see it
// until `track`: before Python code holds it.
void track(PyFlight* f);
PyFlight* new_flight(CacheBase* cache, PyObject* key, std::uint64_t hash, ScopeId scope);

// Loads that cannot end before this flight. add: false if `load` would wait for itself, then nothing is added.
bool add_follower(PyFlight* f, PyFlight* load);
void remove_follower(PyFlight* f, PyFlight* load);

// The load that runs on this thread now (sync), innermost; nullptr if none. Owned: loads need not end in the order of a
// stack, since a greenlet may leave one in the middle. Whoever puts another there keeps what was there, and puts it
// back.
extern thread_local PyFlight* running;

// A probe for the flight's own key.
Probe probe_of(const PyFlight* f);

// What one load stores. `tags` are fingerprints.
struct Keep {
  Durations durations;
  bool own_durations = false;
  std::vector<std::uint64_t> tags;
  std::uint64_t weight = 0;
  bool negative = false;
  bool adopted = false;  // it comes from a remote tier
  bool answered = false;
  Nanos fresh_left = 0;
};

// Stores the value if that is still allowed. False with MemoryError or a comparison's exception; then nothing is
// stored.
bool commit(PyFlight* f, PyObject* value, const Keep& keep, Stored& stored);
// The same with the scope's durations and no tags: what most loads need.
bool commit_plain(PyFlight* f, PyObject* value, Stored& stored, Nanos now);

// The same of what a remote tier has, with its durations, of which `fresh_left` is left. `keep` has tags, weight of the
// value and whether it is an absence.
bool adopt(PyFlight* f, PyObject* value, const std::array<Nanos, 4>& durations, Nanos fresh_left, Keep& keep,
           Stored& stored);
// A call that was counted as a miss was answered from the remote tier: it is a hit, of the entry too, if memory has one
// (`kept`). False with a comparison's exception.
bool count_remote_hit(PyFlight* f, bool stale, bool& kept);

// Ends the flight and wakes the first of the threads that wait for it: no signal handler can come in between. A new
// reference to the list of tasks to wake, or nullptr when there are none.
PyObject* land(PyFlight* f, FlightState state, PyObject* value, PyObject* error);

}  // namespace stillwarm::py
