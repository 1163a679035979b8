// What module.cpp calls, one function per subject; each is defined in the bind_*.cpp of its name.
//
// Thread rule: once, at import, with the GIL held.
#pragma once

#include <pybind11/pybind11.h>

namespace stillwarm {

void bind_base(pybind11::module_& m);          // durations and sizes
void bind_retry(pybind11::module_& m);         // backoff, budget, figures, classification
void bind_breaker(pybind11::module_& m);       // the circuit breaker
void bind_cache(pybind11::module_& m);         // scopes, direct verbs, invalidation, statistics
void bind_flight(pybind11::module_& m);        // what _load and _aload do with a flight
void bind_http(pybind11::module_& m);          // the HTTP policy and its front
void bind_antidup(pybind11::module_& m);       // upserts
void bind_idempotency(pybind11::module_& m);   // verdicts, keys and statements of idempotency
void bind_codec(pybind11::module_& m);         // envelopes; only in a build with a remote tier
void bind_dictionaries(pybind11::module_& m);  // what values are compressed with; likewise
void bind_remote(pybind11::module_& m);        // what remote tiers have in common; likewise
void bind_reader(pybind11::module_& m);        // reads of a remote tier that need no Python; likewise
void bind_postgres(pybind11::module_& m);      // the PostgreSQL tier; only in a build with it
void bind_redis(pybind11::module_& m);         // the Redis tier; likewise

}  // namespace stillwarm
