// How the end of asynchronous requests reaches an event loop: tokens, and a descriptor that becomes readable.
//
// Thread rule: `ended` from any thread, `take` from the loop's; one short lock, held across a fork by whoever forks.
// Refuses to know: loops, futures, Python, and what was asked.
//
// One eventfd per loop, written once for everything that ended together: waking a loop costs a system call on each side.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

#include "core/remote/remote_tier.hpp"

namespace stillwarm {

class Completions : public Sink {
 public:
  Completions() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  Completions(const Completions&) = delete;
  Completions& operator=(const Completions&) = delete;
  ~Completions() override {
    if (fd_ >= 0) ::close(fd_);
  }

  // Below 0: the process has no descriptors left.
  int fd() const noexcept { return fd_; }

  void ended(const std::shared_ptr<Request>& request) override {
    const std::lock_guard lock(mutex_);
    ended_.push_back(request->token);
    if (ended_.size() > 1) return;  // the loop was woken for the first
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(fd_, &one, sizeof one);
  }

  std::vector<std::uint64_t> take() {
    const std::lock_guard lock(mutex_);
    std::uint64_t count = 0;
    [[maybe_unused]] const auto read = ::read(fd_, &count, sizeof count);
    return std::exchange(ended_, {});
  }

  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  std::mutex mutex_;
  std::vector<std::uint64_t> ended_;
  int fd_;
};

}  // namespace stillwarm
