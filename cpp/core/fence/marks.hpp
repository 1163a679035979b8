// Marks: what was invalidated as a whole (all, a type, a scope, a tag), as numbers that entries compare themselves
// with.
//
// Thread rule: guarded by the cache's owner (the GIL in the extension).
// Refuses to know: entries and loads. It answers for anything that was born at a number.
//
// One counter per cache. An entry keeps `born`, the counter at the start of its load. An invalidation takes the next
// number and writes it down. Whatever was born at or before that number is invalid: ties count as invalidated.
// A hard mark says "never again", a soft one "stale since then".
//
// Invariants
//  K1  born of anything that starts now = counter > every mark.
//  K2  epoch > every mark, and moves only with marks: born >= epoch means that no mark needs to be looked at.
//  K3  At most kMostTags tags are remembered. Dropping the oldest raises the floor to its number: everything with a tag
//      that was born at or before the floor is invalid. Memory is bounded, and nothing invalid is ever served.
//  K4  The floor never sinks.
//  K5  A soft mark after a soft mark does not lengthen what the first made stale: both are known until everything
//      stored was looked at. Of more than two, what is older than the last but one is stale since the first.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <unordered_map>
#include <vector>

#include "core/base/scope.hpp"

namespace stillwarm {

struct Mark {
  std::uint64_t hard = 0;
  std::uint64_t soft = 0;
  Nanos soft_at = kForever;
  std::uint64_t before = 0;  // the soft mark before that one, while something older than it may be unlooked-at
  Nanos before_at = kForever;

  std::uint64_t newest() const noexcept { return hard > soft ? hard : soft; }
};

struct Verdict {
  bool dead = false;
  Nanos stale_at = kForever;  // kForever: no soft mark concerns it
};

class Marks {
 public:
  static constexpr std::size_t kMostTags = 65'536;

  std::uint64_t counter() const noexcept { return counter_; }
  std::uint64_t epoch() const noexcept { return epoch_; }
  std::size_t tags() const noexcept { return tags_.size(); }

  // The number of an invalidation that fences write down (keys, patterns).
  std::uint64_t take() noexcept { return counter_++; }

  // soft_at: the moment of a soft mark; kForever makes it a hard one.
  void mark_all(Nanos soft_at) noexcept;
  void mark_type(TypeId type, Nanos soft_at) noexcept;     // without memory for it, everything is marked
  void mark_scope(ScopeId scope, Nanos soft_at) noexcept;  // the same
  void mark_tag(std::uint64_t tag, Nanos soft_at) noexcept;

  // Whatever is stored, or will be by a load that runs, was born at or checked against every mark before `epoch`.
  void looked_at_all(std::uint64_t epoch) noexcept { looked_at_ = epoch; }

  Verdict check(std::uint64_t born, TypeId type, ScopeId scope, std::span<const std::uint64_t> tags) const noexcept;

  // Could something born then, whose tags are not known yet, be invalid by now?
  bool may_concern(std::uint64_t born, TypeId type, ScopeId scope) const noexcept;

 private:
  void write(Mark& mark, Nanos soft_at) noexcept;
  void write_at(std::vector<Mark>& marks, std::size_t at, Nanos soft_at) noexcept;
  static void judge(const Mark& mark, std::uint64_t born, Verdict& verdict) noexcept;

  std::uint64_t counter_ = 1;
  std::uint64_t epoch_ = 1;
  Mark all_;
  std::vector<Mark> types_;
  std::vector<Mark> scopes_;
  std::unordered_map<std::uint64_t, Mark> tags_;
  std::map<std::uint64_t, std::uint64_t> oldest_tags_;  // newest number of the tag -> tag
  std::uint64_t newest_tag_ = 0;
  std::uint64_t floor_ = 0;
  std::uint64_t looked_at_ = 1;
};

}  // namespace stillwarm
