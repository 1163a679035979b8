// Which node of a cluster serves which bucket: what the nodes said last.
//
// Thread rule: every member from any thread; one short lock, a leaf, held across a fork by whoever forks.
// Refuses to know: connections. What it is told is plain data.
//
// A cluster has 16,384 slots; of these only the slots of our buckets matter. An owner has an epoch, another one each
// time that the slot changes hands: what was known of the bucket on the node before says nothing on this one.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/remote/redis_link.hpp"

namespace stillwarm {

class RedisSlots {
 public:
  // `keys`: of each bucket one key; `seeds`: nodes that are asked first.
  RedisSlots(const std::vector<std::string>& keys, std::vector<RedisPlace> seeds);

  // CRC16 of what stands in the first braces, else of all.
  static std::uint16_t slot_of(std::string_view key) noexcept;

  struct Owner {
    RedisPlace place;
    std::uint64_t epoch = 0;
  };
  // Throws TierFailure: nobody serves it.
  Owner owner(std::uint32_t bucket) const;
  // Whether it is served there, as far as anybody knows.
  bool is_at(std::uint32_t bucket, const RedisPlace& place) const;
  std::vector<std::uint64_t> epochs() const;
  // Of all buckets, each once.
  std::vector<RedisPlace> masters() const;
  // Those to ask where nobody is known: masters, then seeds.
  std::vector<RedisPlace> candidates() const;

  // The answer to CLUSTER SLOTS, which `node` gave. Throws TierFailure.
  void learn(const RedisReply& slots, const RedisPlace& node, Nanos now);
  // "MOVED 3999 127.0.0.1:6381", which `node` said.
  void moved(std::uint32_t bucket, std::string_view error, const RedisPlace& node);
  // Of "MOVED ..." or "ASK ...".
  static std::optional<RedisPlace> place_in(std::string_view error, const RedisPlace& node);

  // Something was not as expected: it is to be asked for soon.
  void doubt();
  // Whether it is to be asked for now; then others need not, for a while.
  bool is_due(Nanos now);

  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  void put(std::size_t bucket, RedisPlace place);

  const std::vector<RedisPlace> seeds_;
  std::vector<std::uint16_t> slots_;  // by bucket
  mutable std::mutex mutex_;
  std::vector<Owner> owners_;  // by bucket; epoch 0: never known; an empty host: nobody
  bool doubtful_ = true;
  Nanos asked_at_ = 0;
};

}  // namespace stillwarm
