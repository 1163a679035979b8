// Which entries were hit since hits were last taken, for the counts that a remote tier keeps.
//
// Thread rule: guarded by the cache's owner (the GIL in the extension).
// Refuses to know: where counts go, and how often.
//
// A hit costs one increment in its entry. Only the first one since the last taking is noted here, with what the count
// was; so taking touches what was hit and not all entries. An entry that leaves gives its key and its count: counts are
// exact, whatever is evicted. Without memory for a note the hits of that entry are told with the next ones.
#pragma once

#include <cstddef>
#include <new>
#include <unordered_map>
#include <vector>

#include "core/base/entry.hpp"

namespace stillwarm {

class HitNotes {
 public:
  struct Left {
    Handle key;  // owned
    ScopeId scope;
    std::uint32_t hits;
  };

  // More keys of entries that are gone are not kept, should nobody take them: their hits are lost.
  static constexpr std::size_t kMostLeft = 100'000;

  // False: no memory; it is tried again with the next hit.
  bool begin(Index i, std::uint32_t before) noexcept {
    try {
      before_.try_emplace(i, before);
      return true;
    } catch (const std::bad_alloc&) {
      return false;
    }
  }

  // The entry goes. True: its key is kept here.
  bool leave(Index i, const Entry& e) noexcept {
    const auto it = before_.find(i);
    if (it == before_.end()) return false;
    const std::uint32_t hits = e.hits - it->second;
    before_.erase(it);
    if (left_.size() >= kMostLeft) return false;
    try {
      left_.push_back({e.key, e.scope, hits});
      return true;
    } catch (const std::bad_alloc&) {
      return false;  // these hits are lost
    }
  }

  template <class Noted, class Gone>
  void take(Noted&& noted, Gone&& gone) {
    while (!before_.empty()) {
      const auto it = before_.begin();
      noted(it->first, it->second);
      before_.erase(it);
    }
    while (!left_.empty()) {
      gone(left_.back());
      left_.pop_back();
    }
  }

 private:
  std::unordered_map<Index, std::uint32_t> before_;
  std::vector<Left> left_;
};

}  // namespace stillwarm
