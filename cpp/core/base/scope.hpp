// A scope is what one decorated function (or the direct verbs) has in a cache: its settings and its counters.
//
// Thread rule: guarded by the cache's owner (the GIL in the extension).
// Refuses to know: keys, values, marks.
//
// `key_scope` says whose keys it shares: itself as a rule; scopes with a `key=` text share one per type, since there
// the text is the whole key within the type. Entries keep the scope that stored them, for counting and for clearing.
#pragma once

#include <array>
#include <memory>
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
  std::uint64_t hits = 0;               // fresh and early
  std::uint64_t stale_hits = 0;         // stale and failsafe
  std::uint64_t misses = 0;             // calls that had to wait for a load
  std::uint64_t loads = 0;              // loader runs, retries included
  std::uint64_t load_errors = 0;        // loader runs that raised
  std::uint64_t joined = 0;             // misses that followed another caller's load
  std::uint64_t lost_fills = 0;         // loaded, not stored: invalidated meanwhile
  std::uint64_t skipped_refreshes = 0;  // the load pool was full
  std::uint64_t remote_hits = 0;        // hits that came from the remote tier
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
  bool shares = false;     // other scopes have the same key_scope
  bool single = false;     // its keys are one item each
  std::uint64_t salt = 0;  // mixed into every hash, seeded per process
  Durations durations;
  std::string name;
  Stats stats;
};

class ScopeTable {
 public:
  Scope& operator[](ScopeId id) noexcept { return *scopes_[id]; }
  const Scope& operator[](ScopeId id) const noexcept { return *scopes_[id]; }
  std::size_t size() const noexcept { return scopes_.size(); }

  // Its address stays. Throws std::bad_alloc, and then nothing has changed.
  Scope& add(TypeId type, std::string name, std::uint64_t salt) {
    if (free_.empty()) {
      free_.reserve(scopes_.size() + 1);  // so that remove() cannot fail
      scopes_.reserve(scopes_.size() + 1);
      scopes_.push_back(std::make_unique<Scope>());
      free_.push_back(static_cast<ScopeId>(scopes_.size() - 1));
    }
    const ScopeId id = free_.back();
    free_.pop_back();
    Scope& scope = *scopes_[id];
    scope = Scope{};
    scope.id = scope.key_scope = id;
    scope.type = type;
    scope.salt = salt;
    scope.name = std::move(name);
    scope.in_use = true;
    return scope;
  }

  // Requires that no entry and no flight of the scope is left.
  void remove(ScopeId id) noexcept {
    scopes_[id]->in_use = false;
    free_.push_back(id);
  }

 private:
  std::vector<std::unique_ptr<Scope>> scopes_;
  std::vector<ScopeId> free_;
};

}  // namespace stillwarm
