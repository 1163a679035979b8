// How the end of asynchronous requests reaches an event loop: tokens, and a descriptor that becomes readable.
//
// Thread rule: `ended` from any thread, `take` from the loop's; one short lock, held across a fork by whoever forks.
// Refuses to know: loops, futures, Python, and what was asked.
//
// One eventfd per loop, written once for everything that ended together: waking a loop costs a system call on each
// side.
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
    while (first_ != nullptr) pop();  // one by one: a chain that releases itself does so recursively
  }

  // Below 0: the process has no descriptors left.
  int fd() const noexcept { return fd_; }

  void ended(const std::shared_ptr<Request>& request) noexcept override {
    const std::lock_guard lock(mutex_);
    request->next = nullptr;
    (last_ != nullptr ? last_->next : first_) = request;
    last_ = request.get();
    if (++count_ > 1) return;  // the loop was woken for the first
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(fd_, &one, sizeof one);
  }

  std::vector<std::uint64_t> take() {
    const std::lock_guard lock(mutex_);
    std::vector<std::uint64_t> tokens;
    tokens.reserve(count_);
    std::uint64_t count = 0;
    [[maybe_unused]] const auto read = ::read(fd_, &count, sizeof count);
    for (; first_ != nullptr; pop()) tokens.push_back(first_->token);
    return tokens;
  }

  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  void pop() noexcept {
    const auto first = std::move(first_);
    first_ = std::move(first->next);
    if (first_ == nullptr) last_ = nullptr;
    --count_;
  }

  std::mutex mutex_;
  std::shared_ptr<Request> first_;  // a chain through Request::next
  Request* last_ = nullptr;
  std::size_t count_ = 0;
  int fd_;
};

}  // namespace stillwarm
