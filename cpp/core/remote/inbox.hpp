// What other processes say, on its way into this one's memory, and how long memory may be trusted.
//
// Thread rule: every member from any thread; one short lock, a leaf, held across a fork by whoever forks. No foreign
// code under it.
// Refuses to know: how messages come (polls, pushes), memory, Python.
//
// `attention` is the one number that a hit compares with its time: a hit is allowed before it. It is `trusted_until`
// while nothing waits here, and 0 while something does, so that no hit passes by a message that has arrived.
//
// Invariants
//  N1  attention > now  implies  no message waits, and the last successful poll began less than max_lag ago.
//  N2  A poll that began before `lost` trusts nothing.
//  N3  More than kMostMessages become one "all", and so do messages for which there is no memory: memory is bounded,
//  and
//      nothing is forgotten.
#pragma once

#include <algorithm>
#include <atomic>
#include <iterator>
#include <mutex>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/remote/postgres_moment.hpp"
#include "core/remote/remote_tier.hpp"

namespace stillwarm {

class Inbox {
 public:
  static constexpr std::size_t kMostMessages = 10'000;

  explicit Inbox(Nanos max_lag) : max_lag_(max_lag) { messages_.reserve(1); }
  Inbox(const Inbox&) = delete;
  Inbox& operator=(const Inbox&) = delete;
  virtual ~Inbox() = default;

  const std::atomic<Nanos>& attention() const noexcept { return attention_; }

  // What a poll has to begin from, and the round it belongs to. `seen` is empty before the first.
  std::pair<std::string, std::uint64_t> begin_poll() const {
    const std::lock_guard lock(mutex_);
    return {seen_, round_};
  }

  // The poll that began at `began` (the cache's clock) brought these.
  void end_poll(std::string seen, std::uint64_t round, Nanos began, std::vector<Message>&& messages,
                const std::optional<std::string>& server = std::nullopt) {
    const std::lock_guard lock(mutex_);
    if (round != round_) return;  // the link was lost meanwhile: what it saw is asked for again
    if (server && *server != server_) {
      server_ = *server;
      known_.clear();
    }
    add(messages);
    // One that is older by more than anything is trusted for says that tests have moved the clock back. To believe it
    // does no harm: it trusts less, and what it saw less of is asked for again.
    if (began >= began_ || began_ - began > max_lag_) {
      began_ = began;
      // A server with other data counts anew: what was known of the old one says nothing.
      if (xmax_of(seen) < xmax_of(seen_)) known_.clear();
      seen_ = std::move(seen);
      trusted_until_ = began + max_lag_;
    }
    publish();
  }

  // Whether this is not the server that earlier polls met, or its life after a crash: what they saw says nothing then.
  bool is_another(const std::string& server) const {
    const std::lock_guard lock(mutex_);
    return server != server_ && (!server_.empty() || round_ > 0);
  }

  // Of the last poll that counted.
  std::string server() const {
    const std::lock_guard lock(mutex_);
    return server_;
  }

  // The tier's moment at an answer that this process has read, or wrote: what is visible in it is not news.
  void know(std::string&& moment) {
    const std::lock_guard lock(mutex_);
    const bool other = Moment::of(moment).life != Moment::of(known_).life;
    if (other || xmax_of(moment) >= xmax_of(known_)) known_ = std::move(moment);
  }

  // The newest moment of the tier that this process knows of, where it counts for this key; "" before the first.
  virtual std::string moment(std::string_view /*key*/) const {
    const std::lock_guard lock(mutex_);
    const bool newer = Moment::of(known_).life != server_ || xmax_of(known_) > xmax_of(seen_);
    return newer && !known_.empty() ? known_ : moment_text(seen_, server_);
  }

  // Before the first answer of the tier is used: nothing that happened before `seen`, a snapshot of this life of the
  // server, concerns this process.
  void begin_from(std::string_view seen, std::string_view server) {
    const std::lock_guard lock(mutex_);
    if (!seen_.empty()) return;
    server_ = server;
    seen_ = seen;
  }

  void post(Message&& message) noexcept {
    const std::lock_guard lock(mutex_);
    add({&message, 1});
    publish();
  }

  // The link is gone, or this is the child of a fork: nothing is trusted before the next poll.
  virtual void lost() noexcept {
    const std::lock_guard lock(mutex_);
    ++round_;
    trusted_until_ = 0;
    publish();
  }

  // A look that began at `began` found nothing new.
  void confirm(std::uint64_t round, Nanos began) noexcept {
    const std::lock_guard lock(mutex_);
    if (round != round_ || began < began_) return;
    began_ = began;
    trusted_until_ = began + max_lag_;
    publish();
  }

  // Whether a hit of this key is allowed, whatever is known of others.
  virtual bool trusts(std::string_view /*key*/, Nanos now) const noexcept {
    return now < attention_.load(std::memory_order_acquire);
  }

  // Everything that waits, in its order, and the number to give back with `applied`. It stays here until then: two
  // threads may apply the same messages, which does no harm, and no hit passes before one of them has.
  std::pair<std::vector<Message>, std::uint64_t> read() const {
    const std::lock_guard lock(mutex_);
    return {messages_, taken_ + messages_.size()};
  }

  void applied(std::uint64_t until) {
    const std::lock_guard lock(mutex_);
    if (until <= taken_) return;
    const std::uint64_t done = std::min<std::uint64_t>(until - taken_, messages_.size());
    messages_.erase(messages_.begin(), messages_.begin() + static_cast<std::ptrdiff_t>(done));
    taken_ += done;
    publish();
  }

  bool waiting() const {
    const std::lock_guard lock(mutex_);
    return !messages_.empty();
  }

  Nanos trusted_until() const {
    const std::lock_guard lock(mutex_);
    return trusted_until_;
  }

  // Held across a fork by whoever forks.
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  void add(std::span<Message> messages) noexcept {
    try {
      if (messages_.size() + messages.size() <= kMostMessages) {
        messages_.insert(messages_.end(), std::make_move_iterator(messages.begin()),
                         std::make_move_iterator(messages.end()));
        return;
      }
    } catch (const std::bad_alloc&) {  // nothing was inserted
    }
    taken_ += messages_.size();
    messages_.clear();  // leaves room for one
    messages_.push_back({"all", false});
  }

  void publish() noexcept { attention_.store(messages_.empty() ? trusted_until_ : 0, std::memory_order_release); }

  mutable std::mutex mutex_;
  std::vector<Message> messages_;
  std::string seen_;
  std::string known_;
  std::string server_;
  std::uint64_t taken_ = 0;  // messages that are gone from here
  std::uint64_t round_ = 0;
  Nanos began_ = 0;  // of the last poll that counted
  Nanos trusted_until_ = 0;
  const Nanos max_lag_;
  std::atomic<Nanos> attention_{0};
};

// Tells this process of a write of its own that nobody waits for any more: what was read before it ended may be of
// before it.
class Echo : public Sink {
 public:
  explicit Echo(std::shared_ptr<Inbox> inbox) : inbox_(std::move(inbox)) {}
  void ended(const std::shared_ptr<Request>& request) noexcept override {
    try {
      if (request->kind == Request::Kind::kStore) {
        inbox_->post({"key:" + static_cast<const Store&>(*request).key, false});
      } else if (request->kind == Request::Kind::kInvalidate) {
        const auto& invalidation = static_cast<const Invalidate&>(*request);
        inbox_->post({invalidation.name, invalidation.soft});
      }
    } catch (const std::bad_alloc&) {
      inbox_->post({"all", false});
    }
  }

 private:
  const std::shared_ptr<Inbox> inbox_;
};

}  // namespace stillwarm
