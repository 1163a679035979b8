// What the flow says and is told: decisions, results, outcomes; and how a result becomes an entry.
//
// Thread rule: plain data and pure functions.
// Refuses to know: keys, tables, who waits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>

#include "core/base/life.hpp"
#include "core/base/traits.hpp"

namespace stillwarm {

struct Flight;

// kConfirm: there is a value, and the remote tier has to be asked whether it is still right.
enum class Step : std::uint8_t { kReturn, kRefresh, kLead, kFollow, kAbsent, kError, kConfirm };

// Whether the remote tier was asked if memory is right: it does not answer, or it has confirmed this very key (where a
// tier has several parts, of which one is away, memory as a whole cannot be).
enum class Asked : std::uint8_t { kNot, kAway, kConfirmed };

struct Decision {
  Step step = Step::kError;
  Index entry = kNone;         // the value to return, or the one to fall back to (FAILSAFE)
  Flight* flight = nullptr;    // the one to follow
  State state = State::kGone;  // of the entry

  // There is nothing stored under the key: no entry that only may not be returned either.
  bool nothing() const noexcept { return entry == kNone && state == State::kGone; }
};

// What a load brought, with what its owner says about it.
struct Result {
  Handle value = nullptr;
  std::uint64_t weight = 0;
  Durations durations;                    // those of the scope, or this value's own
  bool own_durations = false;             // they are not those of the scope
  std::span<const std::uint64_t> tags{};  // fingerprints
  bool negative = false;                  // the value is an absence
  double random = 0;                      // [0, 1): for the jitter, and for an early refresh by the load's time
  bool adopted = false;                   // it was loaded before, and is stored in a remote tier
  bool answered = false;                  // a remote tier was asked, and answered
  std::uint64_t since = 0;  // of a set: lost if something concerned the key after this number; 0: it is not
  Nanos fresh_left = 0;     // then: what is left of its ttl
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

// What an entry has beside itself, where the result asks for it: tags, durations of its own, an early refresh. Throws
// std::bad_alloc.
std::unique_ptr<Extra> make_extra(const Result& result);

inline bool needs_extra(const Result& result, Nanos took) noexcept {
  const double early = result.durations.early;
  return result.own_durations || !result.tags.empty() ||
         ((early > 0 || (early == kEarlyAuto && took > 0)) && !result.negative);
}

// Makes `e` hold the result of a load that took `took`; its key, value and place in the lists are not touched. Takes
// `extra`. Written field by field where it stays: an entry that is built elsewhere and copied costs 10 ns more, in
// loads that wait for narrower stores.
inline void fill(Entry& e, const Result& result, Extra* extra, ScopeId scope, std::uint64_t born, Nanos now,
                 Nanos took) noexcept {
  const Durations& d = result.durations;
  e.scope = scope;
  e.born = born;
  e.weight = static_cast<std::uint32_t>(result.weight);
  e.extra = extra;
  e.flags = static_cast<std::uint8_t>((e.flags & kFlagQuiet) | (result.negative ? kFlagNegative : 0));
  Nanos ttl = result.adopted ? result.fresh_left : result.negative ? d.negative_ttl : d.ttl;
  if (!result.negative && !result.adopted && ttl != kForever) {
    ttl -= static_cast<Nanos>(static_cast<double>(ttl) * d.jitter * result.random);
  }
  const Nanos fresh_until = add(now, ttl);
  e.next_at = fresh_until;
  if (extra == nullptr) return;
  extra->fresh_until = fresh_until;
  if (result.negative) return;
  if (!result.adopted) {
    e.next_at = early_at(d, now, fresh_until, took, result.random);
  } else if (d.early > 0 && d.ttl != kForever && fresh_until != kForever) {  // the window is a part of the whole ttl
    e.next_at = fresh_until - static_cast<Nanos>(static_cast<double>(d.ttl) * (1 - d.early));
  }
}

}  // namespace stillwarm
