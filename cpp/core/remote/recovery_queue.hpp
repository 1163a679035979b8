// What a remote tier could not take, kept until it is back: invalidations in the order they came, and the newest write
// of each key and type (the same text is another entry in another type; an invalidation of a key concerns all of them).
//
// Thread rule: the owner's lock. Nothing here locks, waits or calls, except that a write that leaves releases its
// request, whose destructor must not come back here. Refuses to know: requests, connections, breakers, time. A write's
// request is an opaque pointer.
//
// The protocol of whoever sends, one at a time: peek_*() gives copies with their numbers; what the tier has confirmed
// is named in confirmed(); after a failure put_back(). Between these calls the lock is free, and anything may be added.
//
// Invariants
//  Q1  An invalidation leaves the queue only when it was confirmed, or when a hard `all` that stays behind it covers
//  it. Q2  What is added while the same is being sent waits in its own right: what is sent may have been done already.
//  What
//      waits unsent is not added twice, for it will be done later than now: the same name, soft under hard, and
//      anything at all under a hard `all`.
//  Q3  add() of an invalidation cannot fail. Beyond most_invalidations, and without memory, all become one hard `all`,
//      which is a number and needs no memory.
//  Q4  An invalidation, hard or soft, removes the queued writes it concerns, whatever was there before; a pattern
//      removes all of them. Writes go out only when no invalidation waits, and so never before one that concerns them.
//  Q5  At most one write of a key and type, at most most_writes and most_bytes; the one that was queued longest goes
//      first, and is counted. A write that finds no room or no memory is dropped and counted itself, and the older one
//      of its key with it: what would overwrite the newer value must not be sent.
//  Q6  A name of another form ("where") concerns everything.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace stillwarm {

struct RecoveryLimits {
  std::size_t most_invalidations = 10'000;
  std::size_t most_writes = 10'000;
  std::size_t most_bytes = 16 << 20;  // of payload
  std::size_t most_patterns = 256;    // waiting; beyond that, concerns() says yes to everything instead of matching
};

struct QueuedInvalidation {
  std::uint64_t number;  // rising
  std::string name;      // "all", "type:x", "tag:x", "key:x", "pattern:glob"
  bool soft;
};

struct QueuedWrite {
  std::string key, type;
  std::vector<std::string> tags;
  std::size_t bytes = 0;  // of payload
  std::shared_ptr<void> request;
};

// A write on its way: the queue keeps the rest.
struct SentWrite {
  std::uint64_t number;  // this write and no other, also of the same key
  std::string key, type;
  std::shared_ptr<void> request;
};

class RecoveryQueue {
 public:
  explicit RecoveryQueue(const RecoveryLimits& limits = {}) : limits_(limits) {}
  RecoveryQueue(const RecoveryQueue&) = delete;
  RecoveryQueue& operator=(const RecoveryQueue&) = delete;

  // An invalidation that the tier did not take.
  void add(std::string_view name, bool soft) noexcept;
  void add_all() noexcept;  // a hard `all`; also for who has no memory to write a name

  // A write that the tier did not take, or that waits for an invalidation. The newest of its key.
  void add(QueuedWrite&& write) noexcept;

  // Does a waiting invalidation, sent or not, concern it? Then a remote read of it is a miss, and a store of it waits
  // here. Who reads does not know the tags before; it asks again with those of what it found.
  bool concerns(std::string_view key, std::string_view type, std::span<const std::string> tags) const noexcept;

  // The tier took this meanwhile, an invalidation or, as "key:x", a newer set: the writes that it concerns are
  // outdated.
  void overtaken(std::string_view name) noexcept;

  // The request of the write of the key in this type that waits; null: none does.
  std::shared_ptr<void> find(std::string_view key, std::string_view type) const noexcept;

  // A newer write of the key in this type got through, so the queued one must not.
  void forget(std::string_view key, std::string_view type) noexcept;

  // The oldest `most`, to be sent in this order. Throws std::bad_alloc; then nothing has changed.
  std::vector<QueuedInvalidation> peek_invalidations(std::size_t most);
  void confirmed(std::uint64_t through) noexcept;  // the tier took every invalidation up to this number
  void put_back() noexcept { sent_ = 0; }          // those peeked at will be sent again

  // The oldest `most` writes; none while an invalidation waits. Throws std::bad_alloc.
  std::vector<SentWrite> peek_writes(std::size_t most) const;
  void confirmed(const SentWrite& write) noexcept;  // taken, or refused for good; one queued since then stays

  void clear() noexcept;  // counts stay

  std::size_t invalidations() const noexcept { return items_.size() + (all_ != 0 ? 1 : 0); }
  std::size_t writes() const noexcept { return writes_.size(); }
  std::size_t bytes() const noexcept { return bytes_; }  // of queued payload
  bool empty() const noexcept { return invalidations() == 0 && writes_.empty(); }

  std::uint64_t dropped() const noexcept { return dropped_; }       // writes, for want of room or memory
  std::uint64_t overflowed() const noexcept { return overflows_; }  // times that invalidations became one `all`

 private:
  enum Kind : std::uint8_t { kKey, kType, kTag, kPattern, kOther, kKinds };

  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const noexcept { return std::hash<std::string_view>{}(text); }
  };
  struct Waiting {
    std::uint64_t last = 0;  // number of the newest item of this name
    std::uint32_t items = 0;
  };
  using Names = std::unordered_map<std::string, Waiting, Hash, std::equal_to<>>;

  // Numbers of items are without gaps, and above that of `all_`.
  struct Item {
    const Names::value_type* name;
    Kind kind;
    bool soft;
  };

  struct Write {
    std::uint64_t number;
    QueuedWrite write;
  };
  using Writes = std::list<Write>;

  static std::pair<Kind, std::string_view> parse(std::string_view name) noexcept;
  static std::string text_of(const Item& item);
  void append(Kind kind, std::string_view rest, bool soft);
  void become_all() noexcept;
  void drop_items() noexcept;
  void drop_writes() noexcept;
  void remove_writes(Kind kind, std::string_view rest) noexcept;
  void remove_key(std::string_view key) noexcept;
  Writes::iterator remove(Writes::iterator at) noexcept;

  RecoveryLimits limits_;
  std::uint64_t next_ = 1;  // number of the next invalidation
  std::uint64_t sent_ = 0;  // invalidations up to this one may be on their way
  std::uint64_t all_ = 0;   // number of the waiting hard `all`; 0: none
  std::deque<Item> items_;  // the last one has the number next_ - 1
  std::array<Names, kKinds> names_;

  std::uint64_t next_write_ = 1;
  Writes writes_;                                                       // oldest first
  std::unordered_multimap<std::string_view, Writes::iterator> by_key_;  // keys stand in the writes; one per type
  std::size_t bytes_ = 0;
  std::uint64_t dropped_ = 0;
  std::uint64_t overflows_ = 0;
};

}  // namespace stillwarm
