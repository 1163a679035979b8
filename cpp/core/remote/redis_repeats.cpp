#include "core/remote/redis_repeats.hpp"

#include <algorithm>

namespace stillwarm {

void RedisRepeats::took(std::string_view server, const std::string& name, bool soft, Nanos now) {
  const std::lock_guard lock(mutex_);
  while (!taken_.empty() && now - taken_.front().at > kAge) taken_.pop_front();
  if (taken_.size() >= kMost) {
    taken_.clear();
    taken_.push_back({++last_, now, "all", false, std::string(server)});
    return;
  }
  const bool pattern = name.starts_with("pattern:");
  if (name == "all" && !soft) taken_.clear();  // it says what they said
  taken_.push_back({++last_, now, pattern ? "all" : name, soft, std::string(server)});
}

RedisRepeats::Due RedisRepeats::due(std::string_view server, Nanos now) const {
  const std::lock_guard lock(mutex_);
  Due due{{}, last_};
  for (const auto& one : taken_) {
    if (now - one.at <= kAge && (server.empty() || one.server != server)) due.messages.push_back({one.name, one.soft});
  }
  return due;
}

void RedisRepeats::repeated(std::string_view server, std::uint64_t last) {
  const std::lock_guard lock(mutex_);
  for (auto& one : taken_) {
    if (one.number <= last) one.server = server;
  }
}

void RedisRepeats::clear() {
  const std::lock_guard lock(mutex_);
  taken_.clear();
}

}  // namespace stillwarm
