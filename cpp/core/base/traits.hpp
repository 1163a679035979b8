// What the core asks of those who own keys: to compare one that is stored with one that is looked for.
//
// Thread rule: that of the table which asks. Refuses to know: what a key is.
//
//   struct Traits {
//     struct Probe { std::uint64_t hash; ScopeId scope; ... };               // a key as a caller holds it
//     static Match match(ScopeId scope, Handle stored, const Probe& probe);  // may run foreign code
//     static void never_settles(const Probe& probe);                         // each comparison changed the table
//   };
#pragma once

#include "core/base/entry.hpp"

namespace stillwarm {

enum class Match : std::uint8_t { kNo, kYes, kError };

// What a look-up returns beside an index: a comparison failed, the error is with the owner.
inline constexpr Index kFindError = ~Index{0};

// A comparison may change the table that it is called from; the look-up then starts anew, but not for ever.
inline constexpr int kFindRestarts = 64;

}  // namespace stillwarm
