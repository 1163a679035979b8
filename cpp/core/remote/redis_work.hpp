// What one server does of a batch in one round trip: commands out, replies in.
//
// Thread rule: one thread at a time.
// Refuses to know: which connection it is, and whether others are asked at the same time.
//
// Asking and taking are apart so that whoever has several servers (redis_nodes) asks all of them before it waits for
// the first. A work may be asked once more, of another server: its replies are taken once.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/remote/redis_session.hpp"

namespace stillwarm {

class RedisTier;

class RedisWork {
 public:
  RedisWork() = default;
  RedisWork(const RedisWork&) = delete;
  RedisWork& operator=(const RedisWork&) = delete;
  virtual ~RedisWork() = default;

  // Appends its commands; how many replies are due.
  virtual std::size_t ask(RedisSession& session) = 0;
  // These are all of them, and may be errors. May ask more of the same server. Throws TierFailure.
  virtual void take(RedisSession& session, std::span<const OwnedReply> replies) = 0;
};

// One script.
class RedisScriptWork : public RedisWork {
 public:
  explicit RedisScriptWork(RedisCall call) : call_(std::move(call)) {}

  std::size_t ask(RedisSession& session) override {
    session.append(call_);
    return 1;
  }
  void take(RedisSession& session, std::span<const OwnedReply> replies) override {
    expect_ok(replies[0]);
    told(session, replies[0]);
  }

 protected:
  virtual void told(RedisSession& /*session*/, const RedisReply& /*reply*/) {}
  RedisCall call_;
};

// Before a server's marks are used on a connection: what happens from here on concerns this process.
class RedisBeginning : public RedisScriptWork {
 public:
  explicit RedisBeginning(RedisTier& tier);

 private:
  void told(RedisSession& session, const RedisReply& reply) override;

  RedisTier& tier_;
};

// A poll, from what the inbox has seen to what it sees now.
class RedisPoll : public RedisScriptWork {
 public:
  explicit RedisPoll(RedisTier& tier);

 private:
  void told(RedisSession& session, const RedisReply& reply) override;

  RedisTier& tier_;
  const Nanos began_;
  std::uint64_t round_ = 0;
};

// Whether a poll would bring anything: cheaper than a script where there is much that has to be looked at.
class RedisGlance : public RedisWork {
 public:
  explicit RedisGlance(RedisTier& tier) : tier_(tier) {}

  std::size_t ask(RedisSession& session) override;
  void take(RedisSession& session, std::span<const OwnedReply> replies) override;
  bool is_news() const noexcept { return is_news_; }

 private:
  RedisTier& tier_;
  bool is_news_ = true;
};

class RedisLookUp : public RedisWork {
 public:
  RedisLookUp(RedisTier& tier, std::span<Request* const> batch);

  std::size_t ask(RedisSession& session) override;
  void take(RedisSession& session, std::span<const OwnedReply> replies) override;

 private:
  struct Marks;

  std::size_t before_leases() const noexcept;
  Marks read_marks(const RedisReply& reply) const;
  void judge(RedisSession& session, Found& found, std::string_view value, const Marks& marks, std::size_t type,
             long long now, std::string_view entry);

  RedisTier& tier_;
  const std::span<Request* const> batch_;
  std::vector<std::string_view> types_;
  std::vector<std::string> entries_;
  // Where and when it was asked; the connection may be another when the answer is taken, and the server's clock with
  // it.
  const RedisSession* asked_of_ = nullptr;
  RedisClock clock_;
  Nanos asked_ = 0;  // RedisClock::own_now()
  bool asks_time_ = false;
  // Behind the look: whoever finds nothing has the lease already. What another stored between the two leaves it free.
  std::vector<std::pair<LookUp*, RedisCall>> leases_;
};

class RedisStores : public RedisWork {
 public:
  RedisStores(RedisTier& tier, std::span<Request* const> batch);

  std::size_t ask(RedisSession& session) override;
  void take(RedisSession& session, std::span<const OwnedReply> replies) override;

 private:
  RedisTier& tier_;
  std::vector<Store*> stores_;
  std::vector<RedisCall> calls_;
};

// Marks; what a pattern matches is looked for later.
class RedisInvalidations : public RedisScriptWork {
 public:
  RedisInvalidations(RedisTier& tier, std::span<Request* const> batch);

  // Of the i-th of the batch: how many entries it named, and its number.
  std::uint64_t count(std::size_t i) const noexcept { return counts_[i]; }
  long long number(std::size_t i) const noexcept {
    return last_ - static_cast<long long>(counts_.size()) + 1 + static_cast<long long>(i);
  }

 private:
  void told(RedisSession& session, const RedisReply& reply) override;

  RedisTier& tier_;
  const std::span<Request* const> batch_;
  std::vector<std::uint64_t> counts_;
  long long last_ = 0;
};

// Entries that a pattern with this number matched.
class RedisMatches : public RedisScriptWork {
 public:
  RedisMatches(RedisTier& tier, std::vector<std::string> entries, bool soft, long long number);
  std::uint64_t count() const noexcept { return count_; }

 private:
  void told(RedisSession& session, const RedisReply& reply) override;

  std::uint64_t count_ = 0;
};

class RedisLease : public RedisWork {
 public:
  RedisLease(const RedisTier& tier, Lease& request);

  std::size_t ask(RedisSession& session) override;
  void take(RedisSession& session, std::span<const OwnedReply> replies) override;

 private:
  Lease& request_;
  const std::string name_, age_;
};

class RedisHits : public RedisScriptWork {
 public:
  RedisHits(const RedisTier& tier, const Flush& request);
  void add(const std::string& type, const std::string& key, std::uint64_t hits);
};

// Whether a write of this origin was done: "1", "0", "-1" nobody knows.
class RedisDone : public RedisScriptWork {
 public:
  RedisDone(const RedisTier& tier, Query& request);

 private:
  void told(RedisSession& session, const RedisReply& reply) override;

  Query& request_;
};

// Any one command: a row for each element of its answer.
class RedisCommand : public RedisWork {
 public:
  explicit RedisCommand(Query& request) : request_(request) {}

  // The answer becomes the request's rows. Throws TierFailure: it is an error.
  void tell(const RedisReply& reply);

  std::size_t ask(RedisSession& session) override;
  void take(RedisSession& session, std::span<const OwnedReply> replies) override;

 private:
  Query& request_;
};

// Of the moments of several buckets, "BUCKET|moment;BUCKET|moment", that of one; empty: it is not among them. A moment
// without a bucket is that of the one that is meant.
std::string_view moment_in(std::string_view moments, std::optional<std::uint32_t> bucket) noexcept;

inline constexpr std::string_view kScanned = "1000";  // keys that a server looks at in one step of a scan
inline constexpr std::size_t kSurveyed = 256;         // entries that one script judges, before others are served

// What a glob begins with, as a glob of Redis's own that matches more.
std::string wider_glob(std::string_view glob);

}  // namespace stillwarm
