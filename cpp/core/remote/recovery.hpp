// Writes that nobody waits for, and what the tier owes when it is back.
//
// Thread rule: every member from any thread; one short lock, taken under the request queue's and never around it. A
// thread of its own, only while something is owed.
// Refuses to know: SQL, memory, Python. A write that the tier refuses becomes a message to this process's own inbox.
//
// Invariants
//  W1  Owed invalidations go first and in their order; writes follow when none is owed.
//  W2  While an invalidation is owed, `concerns` says so: what the tier has under that name is outdated.
//      A name that the server will never take goes out as `all`, and holds up nothing.
//  W3  A refused write leaves memory: the version that is there is not the one that others see.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "core/remote/inbox.hpp"
#include "core/remote/recovery_queue.hpp"
#include "core/remote/request_queue.hpp"
#include "core/remote/watchdog.hpp"

namespace stillwarm {

class Recovery : public Sink, public std::enable_shared_from_this<Recovery> {
 public:
  struct Figures {
    std::size_t owed_invalidations = 0;
    std::size_t owed_writes = 0;
    std::uint64_t written = 0;
    std::uint64_t refused = 0;   // by the fence
    std::uint64_t rejected = 0;  // by the server, for good
    std::uint64_t dropped = 0;   // there was no room to keep them
    TierError last_rejection;    // kOk: the last write was not rejected
  };

  Recovery(std::shared_ptr<RequestQueue> queue, std::shared_ptr<Inbox> inbox)
      : queue_(std::move(queue)), inbox_(std::move(inbox)) {}

  // At most so much is on its way at once; what comes on top is kept, where there is a limit too.
  static constexpr std::size_t kMostUnderWay = 10'000;
  static constexpr std::size_t kMostBytesUnderWay = 16 << 20;
  static constexpr Nanos kLingers = 60'000'000'000;  // no look-up takes longer

  // Writes it behind the caller.
  void write(const std::shared_ptr<Store>& store);
  // The tier did not take these: they are kept.
  void owe(const std::string& name, bool soft);
  void owe(const std::shared_ptr<Store>& store);

  // Whether a write waits.
  bool owes_writes() const noexcept {
    const std::lock_guard lock(mutex_);
    return owed_.writes() > 0;
  }
  // Whether one of this key does that was not loaded: what the tier has may be older.
  bool owes_set(std::string_view key, std::string_view type) const noexcept;
  // Its payload, as long as it is fresh.
  std::optional<std::string> owed_set(std::string_view key, std::string_view type) const;

  // The tier took this, an invalidation or, as "key:x", a set, which did not come through here.
  void overtaken(std::string_view name) noexcept;

  // The tier took a write that did not come through here.
  void took() noexcept;

  // Invalidations, or until a moment ago: whoever looks has to ask `concerns`.
  bool owes() const noexcept {
    if (owes_.load(std::memory_order_acquire)) return true;
    const Nanos until = lingers_until_.load(std::memory_order_relaxed);
    return until != 0 && steady_now() < until;
  }
  // Whether an invalidation that the tier has not taken concerns what a look-up brought, or one that it took after the
  // look-up was asked: the tier may have answered before, and the answer come home later.
  bool concerns(std::string_view key, std::string_view type, std::span<const std::string> tags, Nanos asked) const;
  void ended(const std::shared_ptr<Request>& request) noexcept override;
  Figures figures() const;

  // Waits until everything was written or so long. True: nothing is left.
  bool drain(Nanos wait);
  void close();
  // In the child of a fork, between lock and unlock.
  void forget();
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  class Batch;

  void keep(const std::shared_ptr<Store>& store) noexcept;
  void settled(const Store& store) noexcept;
  void outdated(const Store& store) noexcept;
  void announce(const QueuedInvalidation& done) noexcept;
  void delivered(const QueuedInvalidation& done) noexcept;
  void wake() noexcept;
  void work();
  void send(std::unique_lock<std::mutex>& lock, Batch& batch,
            std::span<const std::shared_ptr<Request>> requests) noexcept;
  bool send_invalidations(std::unique_lock<std::mutex>& lock);
  bool send_writes(std::unique_lock<std::mutex>& lock);

  const std::shared_ptr<RequestQueue> queue_;
  const std::shared_ptr<Inbox> inbox_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  RecoveryQueue owed_;
  RecoveryQueue delivered_;  // names that the tier took late, for look-ups that were asked before
  Nanos delivered_at_ = 0;   // the last of them
  std::atomic<Nanos> lingers_until_{0};
  std::atomic<bool> owes_{false};     // invalidations, for those who look without the lock
  std::atomic<bool> rejects_{false};  // the last write was rejected; likewise
  Figures figures_;
  std::size_t under_way_ = 0;  // written behind, not ended
  std::size_t under_way_bytes_ = 0;
  bool working_ = false;
  bool closed_ = false;
};

}  // namespace stillwarm
