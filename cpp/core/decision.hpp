// What the flow says and is told: decisions, results, outcomes; and how a result becomes an entry.
//
// Thread rule: plain data and pure functions.
// Refuses to know: keys, tables, who waits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "core/base/life.hpp"
#include "core/base/traits.hpp"

namespace stillwarm {

struct Flight;

enum class Step : std::uint8_t { kReturn, kRefresh, kLead, kFollow, kAbsent, kError };

struct Decision {
  Step step = Step::kError;
  Index entry = kNone;         // the value to return, or the one to fall back to (FAILSAFE)
  Flight* flight = nullptr;    // the one to follow
  State state = State::kGone;  // of the entry
};

// What a load brought, with what its owner says about it.
struct Result {
  Handle value = nullptr;
  std::uint64_t weight = 0;
  Durations durations;                    // those of the scope, or this value's own
  bool own_durations = false;             // they are not those of the scope
  std::span<const std::uint64_t> tags{};  // fingerprints
  bool negative = false;                  // the value is an absence
  double random = 0;                      // for the jitter
};

enum class Stored : std::uint8_t { kStored, kLost, kTooLarge, kNotKept };

struct Outcome {
  Stored stored = Stored::kNotKept;
  Handle released = nullptr;  // the value that was replaced: release it when all else is done
};

struct Failure {
  Index entry = kNone;  // a value that may be served in place of the error
  bool absent = false;  // the entry was dropped: NOT_FOUND
};

// What `hit` returns for an entry that is there and needs a closer look.
inline constexpr Index kNotFresh = kFindError - 1;
inline constexpr bool is_entry(Index i) noexcept { return i != kNone && i < kNotFresh; }

// For tags, durations of its own, an early refresh: see decision.cpp.
Entry make_entry_with_extra(const Result& result, Entry e, Nanos now);

inline Entry make_entry(const Result& result, std::uint64_t hash, ScopeId scope, Nanos now) {
  const Durations& d = result.durations;
  Entry e;
  e.hash = hash;
  e.scope = scope;
  e.weight = static_cast<std::uint32_t>(result.weight);
  if (result.negative) {
    e.flags = kFlagNegative;
    e.next_at = add(now, d.negative_ttl);
  } else {
    Nanos ttl = d.ttl;
    if (ttl != kForever) ttl -= static_cast<Nanos>(static_cast<double>(ttl) * d.jitter * result.random);
    e.next_at = add(now, ttl);
  }
  const bool early = d.early > 0 && !result.negative && e.next_at != kForever;
  return early || result.own_durations || !result.tags.empty() ? make_entry_with_extra(result, e, now) : e;
}

}  // namespace stillwarm
