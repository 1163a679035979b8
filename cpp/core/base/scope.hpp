// A scope is what one decorated function (or the direct verbs) has in a cache: its settings and its counters.
//
// Thread rule: guarded by the cache's owner (the GIL in the extension).
// Refuses to know: keys, values, marks.
//
// `key_scope` says whose keys it shares: itself as a rule; scopes with a `key=` text share one per type, since there the
// text is the whole key within the type. Entries keep the scope that stored them, for counting and for clearing.
#pragma once

#include <array>
#include <deque>
#include <string>
#include <vector>

#include "core/base/life.hpp"

namespace stillwarm {

using TypeId = std::uint32_t;

// Why an entry left memory.
enum class Cause : std::uint8_t { kSize, kExpired, kInvalidated, kTooLarge, kNotFound };
inline constexpr std::size_t kCauses = 5;
inline constexpr std::array<const char*, kCauses> kCauseNames = {"size", "expired", "invalidated", "too_large",
                                                                 "not_found"};

struct Stats {
  std::uint64_t hits = 0;         // fresh and early
  std::uint64_t stale_hits = 0;   // stale and failsafe
  std::uint64_t misses = 0;       // calls that had to wait for a load
  std::uint64_t loads = 0;        // loader runs, retries included
  std::uint64_t load_errors = 0;  // loader runs that raised
  std::uint64_t joined = 0;       // misses that followed another caller's load
  std::uint64_t lost_fills = 0;   // loaded, not stored: invalidated meanwhile
  std::uint64_t skipped_refreshes = 0;  // the load pool was full
  Nanos load_time = 0;
  std::array<std::uint64_t, kCauses> removed{};
  std::uint64_t entries = 0;
  std::uint64_t bytes = 0;

  void reset_counters() noexcept {
    const std::uint64_t kept_entries = entries, kept_bytes = bytes;
    *this = Stats{};
    entries = kept_entries;
    bytes = kept_bytes;
  }
};

struct Scope {
  ScopeId id = 0;
  ScopeId key_scope = 0;
  TypeId type = 0;
  bool in_use = false;
  bool shares = false;  // other scopes have the same key_scope
  bool single = false;  // its keys are one item each
  std::uint64_t salt = 0;  // mixed into every hash, seeded per process
  Durations durations;
  std::string name;
  Stats stats;
};

class ScopeTable {
 public:
  Scope& operator[](ScopeId id) noexcept { return scopes_[id]; }
  const Scope& operator[](ScopeId id) const noexcept { return scopes_[id]; }
  std::size_t size() const noexcept { return scopes_.size(); }

  // Throws std::bad_alloc.
  Scope& add(TypeId type, std::string name, std::uint64_t salt) {
    ScopeId id = 0;
    if (!free_.empty()) {
      id = free_.back();
    } else {
      id = static_cast<ScopeId>(scopes_.size());
      free_.reserve(scopes_.size() + 1);  // so that remove() cannot fail
      scopes_.emplace_back();
    }
    Scope fresh;
    fresh.id = fresh.key_scope = id;
    fresh.type = type;
    fresh.salt = salt;
    fresh.name = std::move(name);
    fresh.in_use = true;
    scopes_[id] = std::move(fresh);
    if (!free_.empty() && free_.back() == id) free_.pop_back();
    return scopes_[id];
  }

  // Requires that no entry and no flight of the scope is left.
  void remove(ScopeId id) noexcept {
    scopes_[id].in_use = false;
    free_.push_back(id);
  }

 private:
  std::deque<Scope> scopes_;  // addresses stay
  std::vector<ScopeId> free_;
};

}  // namespace stillwarm
