// What this process invalidated in the last minute, and which server took it: another server may have lost it.
//
// Thread rule: every member from any thread; one short lock, a leaf, held across a fork by whoever forks.
// Refuses to know: connections, commands.
//
// A replica that becomes the master lacks what had not arrived there, and a master that was cut off goes on taking what
// nobody else will see. So whoever meets a server that did not take an invalidation itself says it once more there
// (I8). That what such a server *has* is of before is another matter: see "life of a server" in redis_scripts.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/entry.hpp"
#include "core/remote/remote_tier.hpp"

namespace stillwarm {

class RedisRepeats {
 public:
  static constexpr Nanos kAge = 60'000'000'000;
  static constexpr std::size_t kMost = 10'000;  // more become one "all"

  // `server` took it. A server that does not say its name is never the same as another.
  void took(std::string_view server, const std::string& name, bool soft, Nanos now);
  // What `server` did not take, in its order. A pattern is an "all" here: nobody looks at every key for a repetition.
  struct Due {
    std::vector<Message> messages;
    std::uint64_t last = 0;  // of all that was looked at
  };
  Due due(std::string_view server, Nanos now) const;
  // What was looked at was said to `server`; what came meanwhile was not.
  void repeated(std::string_view server, std::uint64_t last);
  void clear();

  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  struct Taken {
    std::uint64_t number;
    Nanos at;
    std::string name;
    bool soft;
    std::string server;
  };

  mutable std::mutex mutex_;
  std::deque<Taken> taken_;
  std::uint64_t last_ = 0;
};

}  // namespace stillwarm
