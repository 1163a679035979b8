// Reads of the remote tier that end as most do: one look-up finds fresh values, or nothing. Performed here, from the
// flight to the value in memory; whatever else a look-up may say is left to Python (_tier_reads, _tier_loads).
//
// Thread rule: with the GIL; what waits releases it.
// Refuses to know: what is to be done about an error, an absence, a stale value, a dictionary that is not here.
//
// While `calm` is set nothing happens that a read has to ask Python about: no open transaction invalidates anything, no
// request failed lately, the upkeep runs. Python sets it, and whatever ends the calm clears it, also while a read
// waits: so it is looked at again when the answer is there. Whoever sets it has looked at several things before, and is
// refused if something ended the calm since the first of them.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "bindings/cached_call.hpp"
#include "bindings/remote_tier.hpp"
#include "core/codec/dictionaries.hpp"

namespace stillwarm::py {

struct Reader {
  RemoteTier* tier;
  Dictionaries* dictionaries;
  std::string key_space;  // the cache's namespace
  std::size_t max_value;
  PyObject* slowly;  // (cache, key, default), and what was begun: what Python does of a `get`; owned
  PyObject* decode;  // of direct keys, owned; nullptr: they are read by Python
  int codec;         // the number of what it reads
  bool calm = false;
  std::uint64_t ended = 0;   // how often something ended the calm
  std::uint64_t served = 0;  // look-ups that ended here, since somebody asked
};

// How a value is read: `decode` is called with the payload, if `codec` made it.
struct Decoding {
  PyObject* decode;
  int codec;
};

// Lands the flight with the i-th value of a look-up that succeeded, if that is fresh and can be read, and counts the
// hit. A new reference; to `missing`: nothing was done, Python has to look at it; nullptr: an exception.
PyObject* land_found(const Reader& reader, PyFlight* flight, const LookUp& look, std::size_t i, const Decoding& how);

// Ends a flight with which somebody only looked, if it has not landed. An exception that is set stays.
void land_missing(PyFlight* flight);

// The text of a key as a tier has it, if that is the text itself: see storable() in _tier_values.py. Empty data: it is
// not.
std::string_view storable(PyObject* text);

// The look-up as Python has it: a new reference, or nullptr with an exception.
PyObject* request_of(const std::shared_ptr<LookUp>& look);

// Performs the look-up on this thread. True: `error` says how it ended. False: an exception.
bool perform(const Reader& reader, const std::shared_ptr<LookUp>& look, std::optional<TierError>& error);

// A direct key that memory has not got.
PyObject* read_direct(Reader& reader, PyObject* cache, PyObject* key, PyObject* fallback);

// What `begin` says of a direct key, and the look-up that is to be asked where this caller leads: a new tuple (step,
// value, flight, request or None). Python stores a key that is not storable as it is.
PyObject* begin_direct(const Reader& reader, PyObject* cache, PyObject* key);

// Many direct keys (a list of exact str, no two alike). A new tuple: dict of what memory has; the look-up for the rest,
// or None; a list of (key, flight or None), in its order; a list of (key, step, value, flight) that Python has to look
// at. None: a key that is not storable, nothing was begun.
PyObject* begin_many(PyObject* cache, PyObject* keys, bool count);
// Lands them with what a look-up that succeeded found, into the dict; the indices that are left to Python.
PyObject* land_many(Reader& reader, const LookUp& look, PyObject* begun, PyObject* found);

}  // namespace stillwarm::py
