// The queue of what a remote tier could not take. Thread rule and invariants: see the header.
#include "core/remote/recovery_queue.hpp"

#include <algorithm>
#include <exception>

#include "core/remote/glob.hpp"

namespace stillwarm {
namespace {

constexpr std::array<std::string_view, 5> kPrefixes = {"key:", "type:", "tag:", "pattern:", ""};

bool has_tag(std::span<const std::string> tags, std::string_view tag) noexcept {
  return std::find(tags.begin(), tags.end(), tag) != tags.end();
}

}  // namespace

std::pair<RecoveryQueue::Kind, std::string_view> RecoveryQueue::parse(std::string_view name) noexcept {
  std::size_t kind = 0;
  while (!name.starts_with(kPrefixes[kind])) ++kind;  // everything starts with the last one
  return {static_cast<Kind>(kind), name.substr(kPrefixes[kind].size())};
}

std::string RecoveryQueue::text_of(const Item& item) {
  std::string text(kPrefixes[item.kind]);
  text += item.name->first;
  return text;
}

void RecoveryQueue::add(std::string_view name, bool soft) noexcept {
  const auto [kind, rest] = parse(name);
  if (kind == kOther && rest == "all" && !soft) return add_all();
  remove_writes(kind, rest);
  if (all_ > sent_) return;  // will be done later than now, and covers it
  try {
    append(kind, rest, soft);
  } catch (const std::exception&) {
    become_all();
  }
}

void RecoveryQueue::overtaken(std::string_view name) noexcept {
  const auto [kind, rest] = parse(name);
  remove_writes(kind, rest);
}

void RecoveryQueue::add_all() noexcept {
  // What is on its way is covered as well: this number is above every other, so a confirmation of those leaves it here.
  drop_items();
  if (all_ <= sent_) all_ = next_++;
  drop_writes();
}

void RecoveryQueue::become_all() noexcept {
  ++overflows_;
  add_all();
}

void RecoveryQueue::append(Kind kind, std::string_view rest, bool soft) {
  Names& names = names_[kind];
  auto found = names.find(rest);
  if (found != names.end() && found->second.last > sent_) {
    Item& item = items_[items_.size() - (next_ - found->second.last)];
    item.soft = item.soft && soft;
    return;
  }
  if (invalidations() >= limits_.most_invalidations) return become_all();
  if (found == names.end()) found = names.try_emplace(std::string(rest)).first;
  items_.push_back({&*found, kind, soft});
  found->second.last = next_++;
  ++found->second.items;
}

bool RecoveryQueue::concerns(std::string_view key, std::string_view type,
                             std::span<const std::string> tags) const noexcept {
  if (all_ != 0) return true;
  if (items_.empty()) return false;
  if (!names_[kOther].empty() || names_[kKey].contains(key) || names_[kType].contains(type)) return true;
  const Names& named = names_[kTag];
  if (std::any_of(tags.begin(), tags.end(), [&named](const std::string& tag) { return named.contains(tag); }))
    return true;
  const Names& patterns = names_[kPattern];
  if (patterns.size() > limits_.most_patterns) return true;
  return std::any_of(patterns.begin(), patterns.end(), [key](const auto& p) { return glob_matches(p.first, key); });
}

std::vector<QueuedInvalidation> RecoveryQueue::peek_invalidations(std::size_t most) {
  std::vector<QueuedInvalidation> some;
  some.reserve(std::min(most, invalidations()));
  if (all_ != 0 && most > 0) some.push_back({all_, "all", false});
  const std::uint64_t first = next_ - items_.size();
  for (std::size_t i = 0; i < items_.size() && some.size() < most; ++i) {
    some.push_back({first + i, text_of(items_[i]), items_[i].soft});
  }
  if (!some.empty()) sent_ = std::max(sent_, some.back().number);
  return some;
}

void RecoveryQueue::confirmed(std::uint64_t through) noexcept {
  if (all_ <= through) all_ = 0;
  while (!items_.empty() && next_ - items_.size() <= through) {
    const Item& item = items_.front();
    Names& names = names_[item.kind];
    const auto found = names.find(item.name->first);
    if (--found->second.items == 0) names.erase(found);
    items_.pop_front();
  }
}

void RecoveryQueue::drop_items() noexcept {
  items_.clear();
  for (Names& names : names_) names.clear();
}

void RecoveryQueue::drop_writes() noexcept {
  by_key_.clear();
  writes_.clear();
  bytes_ = 0;
}

void RecoveryQueue::add(QueuedWrite&& write) noexcept {
  forget(write.key, write.type);
  try {
    if (limits_.most_writes == 0 || write.bytes > limits_.most_bytes) {
      ++dropped_;
      return;
    }
    writes_.push_back({next_write_, std::move(write)});
    try {
      by_key_.emplace(writes_.back().write.key, std::prev(writes_.end()));
    } catch (...) {
      writes_.pop_back();
      throw;
    }
  } catch (const std::exception&) {
    ++dropped_;
    return;
  }
  ++next_write_;
  bytes_ += writes_.back().write.bytes;
  while (writes_.size() > limits_.most_writes || bytes_ > limits_.most_bytes) {
    remove(writes_.begin());
    ++dropped_;
  }
}

void RecoveryQueue::forget(std::string_view key, std::string_view type) noexcept {
  const auto [first, last] = by_key_.equal_range(key);
  const auto found = std::find_if(first, last, [type](const auto& one) { return one.second->write.type == type; });
  if (found != last) remove(found->second);
}

std::shared_ptr<void> RecoveryQueue::find(std::string_view key, std::string_view type) const noexcept {
  const auto [first, last] = by_key_.equal_range(key);
  const auto found = std::find_if(first, last, [type](const auto& one) { return one.second->write.type == type; });
  return found != last ? found->second->write.request : nullptr;
}

void RecoveryQueue::remove_key(std::string_view key) noexcept {
  for (auto found = by_key_.find(key); found != by_key_.end(); found = by_key_.find(key)) remove(found->second);
}

RecoveryQueue::Writes::iterator RecoveryQueue::remove(Writes::iterator at) noexcept {
  const auto [first, last] = by_key_.equal_range(at->write.key);
  by_key_.erase(std::find_if(first, last, [at](const auto& one) { return one.second == at; }));
  bytes_ -= at->write.bytes;
  return writes_.erase(at);
}

// Types and tags are looked for one write after the other: it happens only while the tier is away, and an index would
// cost every write.
void RecoveryQueue::remove_writes(Kind kind, std::string_view rest) noexcept {
  if (kind == kKey) return remove_key(rest);
  for (auto at = writes_.begin(); at != writes_.end();) {
    const QueuedWrite& write = at->write;
    const bool concerned = kind == kType ? write.type == rest : kind != kTag || has_tag(write.tags, rest);
    at = concerned ? remove(at) : std::next(at);
  }
}

std::vector<SentWrite> RecoveryQueue::peek_writes(std::size_t most) const {
  std::vector<SentWrite> some;
  if (invalidations() != 0) return some;
  some.reserve(std::min(most, writes_.size()));
  for (auto at = writes_.begin(); at != writes_.end() && some.size() < most; ++at) {
    some.push_back({at->number, at->write.key, at->write.type, at->write.request});
  }
  return some;
}

void RecoveryQueue::confirmed(const SentWrite& write) noexcept {
  const auto [first, last] = by_key_.equal_range(write.key);
  const auto found = std::find_if(first, last, [&](const auto& one) { return one.second->number == write.number; });
  if (found != last) remove(found->second);
}

void RecoveryQueue::clear() noexcept {
  drop_items();
  drop_writes();
  all_ = 0;
}

}  // namespace stillwarm
