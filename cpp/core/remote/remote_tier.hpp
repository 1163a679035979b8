// What a remote tier is asked and what it answers: requests as plain data, and the two interfaces behind which a
// database stands.
//
// Thread rule: a request belongs to whoever made it until it is handed to a RequestQueue, then to whoever serves it,
// and to its maker again once it is done. Links are used by one thread at a time. Refuses to know: Python, memory,
// flights; which database it is.
//
// Names of what an invalidation concerns, the same in every tier and in messages:
//   "all"   "type:<type>"   "tag:<tag>"   "key:<key>"   "pattern:<glob>"   "fence" (no load that runs may be stored)
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/entry.hpp"

namespace stillwarm {

enum class TierFault : std::uint8_t {
  kOk,
  kUnavailable,  // no connection, or it broke
  kTimeout,      // no answer in time
  kRejected,     // the server answered with an error: `state` says which
  kInDoubt,      // it broke when the answer to a write was due: done or not done
  kFull,         // too many requests wait
  kClosed,
};

struct TierError {
  TierFault fault = TierFault::kOk;
  std::string state;    // SQLSTATE, or the first word of a Redis error
  std::string message;  // never holds a password
  bool part = false;    // of a tier that has parts: another one answers, so this is no failure of the whole

  explicit operator bool() const noexcept { return fault != TierFault::kOk; }
};

// What the server or the connection said, on its way out of a link.
struct TierFailure : std::runtime_error {
  explicit TierFailure(TierError e) : std::runtime_error(e.message), error(std::move(e)) {}
  TierError error;
};

struct Request;
class QueueWaiter;

// Who is told that a request ended. Called under the queue's lock, and may be released there: takes short locks of its
// own at most, and never the queue's.
class Sink {
 public:
  Sink() = default;
  Sink(const Sink&) = delete;
  Sink& operator=(const Sink&) = delete;
  virtual ~Sink() = default;
  virtual void ended(const std::shared_ptr<Request>& request) noexcept = 0;
};

// One request. `slot` says which table of the tier; 0 is the shared one.
struct Request {
  enum class Kind : std::uint8_t { kLookUp, kStore, kInvalidate, kPoll, kLease, kFlush, kQuery };
  static constexpr std::size_t kKinds = 7;
  enum class Stage : std::uint8_t { kNew, kWaiting, kServed, kDone };

  Request(Kind k, std::uint32_t s) : kind(k), slot(s) {}
  Request(const Request&) = delete;
  Request& operator=(const Request&) = delete;
  virtual ~Request() = default;

  const Kind kind;
  const std::uint32_t slot;
  std::uint32_t variant = 0;  // requests of one kind, slot and variant may be served by one statement
  bool idempotent = false;    // may be asked once more on another connection
  bool once = false;          // must not be done twice: where the answer is lost, the error is kInDoubt. Served alone
  bool background = false;    // nobody waits: it is not refused while it queues for long
  Nanos timeout = 0;          // of the operation itself; 0: the tier's
  TierError error;

  std::shared_ptr<Sink> sink;     // none: somebody waits in RequestQueue::run, or nobody does
  std::uint64_t token = 0;        // the sink's own
  std::shared_ptr<Request> next;  // likewise: who keeps ended requests needs no memory for it

  // The queue's own.
  QueueWaiter* waiter = nullptr;  // in RequestQueue::run
  Stage stage = Stage::kNew;
  bool tried = false;
  Nanos asked = 0;  // when it came to the queue
  Nanos deadline = 0;
};

struct Found {
  bool found = false;
  bool dead = false;  // there is a row, and a mark says that it is invalid
  bool has_payload = false;
  std::string payload;                              // sealed
  std::vector<std::optional<std::string>> columns;  // of a type's own table
  Nanos fresh_left = 0;                             // negative: since when it is stale
  Nanos kept_left = 0;                              // until nothing needs it any more
  std::string version;
  std::vector<std::string> tags;
};

struct LookUp : Request {
  explicit LookUp(std::uint32_t s = 0) : Request(Kind::kLookUp, s) { idempotent = true; }
  std::vector<std::string> keys;
  std::vector<std::string> types;  // one per key: the same text is another entry in another type
  bool whole = false;              // with `seen` and `version`, also where a fresh value is there
  // Not empty: of a tier that can, the lease that is taken along where the one key has no entry.
  std::string lease, owner;
  Nanos lease_age = 0;
  bool taken = false;
  std::vector<Found> found;  // one per key
  std::string seen;          // the tier's moment at which it was looked: t0 of a load that follows
};

struct Store : Request {
  // kLoad: refused if anything that concerns it happened after `born`. kSet: a value that was not loaded; others are
  // told. kAdd: only where nothing is. kSwap: only over `expected`.
  enum class Mode : std::uint8_t { kLoad, kSet, kAdd, kSwap };
  Store(std::uint32_t s, Mode m) : Request(Kind::kStore, s), mode(m) {
    variant = static_cast<std::uint32_t>(m);
    once = m == Mode::kAdd || m == Mode::kSwap;
  }

  const Mode mode;
  std::string key, type, payload, born, expected;
  std::string lease, owner;  // given back by a store that is done, of a tier that can
  std::string origin;        // what its message to the others says of where it comes from; empty: this process
  std::vector<std::string> tags;
  std::vector<std::optional<std::string>> columns;
  Nanos fresh_for = 0;
  Nanos keep_for = 0;
  Nanos owed_since = 0;  // steady_now()
  bool stored = false;
  std::string version;
};

// In statements and scripts.
inline const char* name_of(Store::Mode mode) noexcept {
  constexpr std::array<const char*, 4> kNames = {"load", "set", "add", "swap"};
  return kNames[static_cast<std::size_t>(mode)];
}

struct Invalidate : Request {
  static constexpr std::uint32_t kPattern = 1;                    // variant
  static constexpr std::string_view kPatternName = "pattern:";    // so its name begins then
  static constexpr Nanos kPatternTimeout = 30 * 1'000'000'000LL;  // it may have to look at every key
  Invalidate(std::string n, bool s) : Request(Kind::kInvalidate, 0), name(std::move(n)), soft(s) {
    idempotent = true;
    if (!name.starts_with(kPatternName)) return;
    variant = kPattern;
    timeout = kPatternTimeout;
  }
  const std::string name;
  const bool soft;
  std::uint64_t count = 0;  // entries that a key named
};

struct Message {
  std::string name;
  bool soft = false;
};

struct Poll : Request {
  Poll() : Request(Kind::kPoll, 0) { idempotent = true; }
  std::vector<std::string> asked;     // transactions whose end is awaited
  std::vector<std::string> outcomes;  // one each: "committed", "aborted", "in progress", or empty where it is unknown
};

struct Lease : Request {
  enum class Verb : std::uint8_t { kTake, kGiveBack };
  explicit Lease(Verb v) : Request(Kind::kLease, 0), verb(v) { variant = static_cast<std::uint32_t>(v); }
  const Verb verb;
  std::string key, owner;
  Nanos age = 0;
  bool taken = false;
};

struct Flush : Request {
  Flush() : Request(Kind::kFlush, 0) { background = true; }
  std::uint64_t batch = 0;  // of this process: one that was written is not written again
  std::vector<std::string> keys, types;
  std::vector<std::uint64_t> hits;
};

// Any one statement with text parameters, in a transaction of its own.
struct Query : Request {
  Query() : Request(Kind::kQuery, 0) {}
  std::string text;
  std::vector<std::optional<std::string>> parameters;
  bool sent = false;  // the statement itself: what breaks before is no doubt about one that must not be done twice
  std::vector<std::vector<std::optional<std::string>>> rows;
};

// One connection.
class Link {
 public:
  Link() = default;
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;
  virtual ~Link() = default;

  // Serves requests of one kind, slot and variant. Each gets its outcome; nothing is thrown but std::bad_alloc.
  // False: the connection is not to be used again.
  virtual bool serve(std::span<Request* const> batch) = 0;

  // One round trip that proves that the server answers.
  virtual bool ping() = 0;

  // Makes whatever waits on this connection fail now. From any thread, while `serve` or `ping` runs.
  virtual void cut() noexcept = 0;

  // In the child of a fork: closes the descriptor and says nothing to the server.
  virtual void forget() noexcept = 0;
};

// Where connections come from.
class Connector {
 public:
  Connector() = default;
  Connector(const Connector&) = delete;
  Connector& operator=(const Connector&) = delete;
  virtual ~Connector() = default;

  // Blocks until there is one, for a bounded time. Null with `error`.
  virtual std::unique_ptr<Link> connect(TierError& error) = 0;

  // A name for this process, by which it knows its own messages. It has another after a fork.
  virtual void set_process(const std::string& /*process*/) {}

  // Of a tier that is several servers. A part is away while its circuit is not closed.
  struct Parts {
    unsigned all = 0, away = 0;
    bool some_answer = false;
  };
  virtual Parts parts() const { return {}; }
  // Whether the part that has this key did not answer a moment ago.
  virtual bool is_away(std::string_view /*key*/) const { return false; }
  // Held across a fork by whoever forks.
  virtual void lock() {}
  virtual void unlock() {}
};

}  // namespace stillwarm
