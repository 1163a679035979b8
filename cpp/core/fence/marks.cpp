#include "core/fence/marks.hpp"

#include <algorithm>
#include <new>

namespace stillwarm {

void Marks::write(Mark& mark, Nanos soft_at) noexcept {
  const std::uint64_t number = counter_++;
  epoch_ = counter_;
  if (soft_at == kForever) {
    mark.hard = number;
  } else {
    const Nanos earlier = mark.before >= looked_at_ ? mark.before_at : kForever;
    const bool unseen = mark.soft >= looked_at_;
    mark.before = unseen ? mark.soft : 0;
    mark.before_at = unseen ? std::min(earlier, mark.soft_at) : kForever;
    mark.soft = number;
    mark.soft_at = soft_at;
  }
}

void Marks::write_at(std::vector<Mark>& marks, std::size_t at, Nanos soft_at) noexcept {
  try {
    if (at >= marks.size()) marks.resize(at + 1);
  } catch (const std::exception&) {
    mark_all(soft_at);  // an invalidation is never lost
    return;
  }
  write(marks[at], soft_at);
}

void Marks::mark_all(Nanos soft_at) noexcept { write(all_, soft_at); }

void Marks::mark_type(TypeId type, Nanos soft_at) noexcept { write_at(types_, type, soft_at); }

void Marks::mark_scope(ScopeId scope, Nanos soft_at) noexcept { write_at(scopes_, scope, soft_at); }

void Marks::mark_tag(std::uint64_t tag, Nanos soft_at) noexcept {
  newest_tag_ = counter_;
  try {
    const auto [it, added] = tags_.try_emplace(tag);
    Mark& mark = it->second;
    try {
      oldest_tags_.emplace(counter_, tag);
    } catch (...) {
      if (added) tags_.erase(it);
      throw;
    }
    if (!added) oldest_tags_.erase(mark.newest());
    write(mark, soft_at);
    if (tags_.size() > kMostTags) {
      const auto oldest = oldest_tags_.begin();
      floor_ = std::max(floor_, oldest->first);
      tags_.erase(oldest->second);
      oldest_tags_.erase(oldest);
    }
  } catch (const std::bad_alloc&) {
    // An invalidation is never lost: without memory for the tag, everything that has tags is invalid.
    floor_ = counter_++;
    epoch_ = counter_;
  }
}

void Marks::judge(const Mark& mark, std::uint64_t born, Verdict& verdict) noexcept {
  if (mark.hard >= born) verdict.dead = true;
  if (mark.soft >= born) verdict.stale_at = std::min(verdict.stale_at, mark.soft_at);
  if (mark.before >= born) verdict.stale_at = std::min(verdict.stale_at, mark.before_at);
}

Verdict Marks::check(std::uint64_t born, TypeId type, ScopeId scope,
                     std::span<const std::uint64_t> tags) const noexcept {
  Verdict verdict;
  if (born >= epoch_) return verdict;
  judge(all_, born, verdict);
  if (type < types_.size()) judge(types_[type], born, verdict);
  if (scope < scopes_.size()) judge(scopes_[scope], born, verdict);
  if (!tags.empty() && floor_ >= born) verdict.dead = true;
  for (const std::uint64_t tag : tags) {
    if (const auto it = tags_.find(tag); it != tags_.end()) judge(it->second, born, verdict);
  }
  return verdict;
}

bool Marks::may_concern(std::uint64_t born, TypeId type, ScopeId scope) const noexcept {
  if (born >= epoch_) return false;
  if (newest_tag_ >= born) return true;
  const Verdict verdict = check(born, type, scope, {});
  return verdict.dead || verdict.stale_at != kForever;
}

}  // namespace stillwarm
