// One cached value with everything that is kept about it, and the slab that holds all entries of a cache.
//
// Thread rule: guarded by the cache's owner (the GIL in the extension); nothing here locks.
// Refuses to know: what a key or a value is. A Handle is an opaque pointer that the bindings own.
//
// An entry is 80 bytes and is named by its 32-bit index in the slab, so that the four list links cost 16 bytes and
// not 32. What most entries do not have (tags, durations of their own, a failure pause) lives in `Extra`.
//
// Invariants
//  E1  Index 0 is "none"; the slab never hands it out.
//  E2  The address of an entry is stable until it is freed: blocks are never moved.
//  E3  `allocate` is the only member that can throw (std::bad_alloc), and then nothing has changed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

namespace stillwarm {

using Handle = void*;
using Index = std::uint32_t;
using ScopeId = std::uint32_t;
using Nanos = std::int64_t;

inline constexpr Index kNone = 0;
inline constexpr Nanos kForever = std::numeric_limits<Nanos>::max();
inline constexpr Nanos kMillisecond = 1'000'000;
inline constexpr Nanos kSecond = 1'000 * kMillisecond;

// Which list of the eviction policy holds the entry.
enum class Queue : std::uint8_t { kNowhere, kWindow, kProbation, kProtected };

// What few entries have. Moments are on the cache's clock; kForever where there is no end.
struct Extra {
  Nanos ttl = 0;  // of this value, jitter and invalidation aside; 0: that of its scope
  Nanos fresh_until = kForever;
  Nanos stale_while_revalidate = 0;
  Nanos stale_if_error = 0;
  Nanos keep = 0;
  Nanos retry_at = 0;               // no new load before this moment (after a failure)
  std::uint32_t failures = 0;       // in a row
  std::vector<std::uint64_t> tags;  // fingerprints
};

// Entry::flags
inline constexpr std::uint8_t kFlagNegative = 1;  // a remembered absence: the value is what NotFound says
inline constexpr std::uint8_t kFlagQuiet = 2;     // no hit since hits were last taken

struct Entry {
  Handle key = nullptr;
  Handle value = nullptr;
  std::uint64_t hash = 0;
  Nanos next_at = 0;       // end of FRESH (early_at or fresh_until): the one deadline that a hit reads
  std::uint64_t born = 0;  // marks with a number below this one were checked
  Extra* extra = nullptr;  // owned
  Index newer = kNone;     // policy list
  Index older = kNone;
  Index timer_next = kNone;  // timer wheel
  Index timer_prev = kNone;
  ScopeId scope = 0;
  std::uint32_t weight = 0;  // bytes, overhead included, saturated at 2^32 - 1
  std::uint32_t hits = 0;    // exact, saturated
  Queue queue = Queue::kNowhere;
  std::uint8_t touched = 0;  // hits the policy has not seen yet, lossy
  std::uint8_t flags = kFlagQuiet;
  std::uint8_t timer_state = 0;  // what timer_prev is: see W4 of the timer wheel
};
static_assert(sizeof(Entry) == 80 || sizeof(void*) != 8, "an entry is 80 bytes: see cpp/DESIGN.md, memory per entry");

class Slab {
 public:
  Slab() = default;
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;

  Entry& operator[](Index i) noexcept { return blocks_[i >> kShift][i & kMask]; }
  const Entry& operator[](Index i) const noexcept { return blocks_[i >> kShift][i & kMask]; }

  // A default-constructed entry. Throws std::bad_alloc.
  Index allocate() {
    if (free_ == kNone) add_block();
    const Index i = free_;
    Entry& e = (*this)[i];
    free_ = e.newer;
    e = Entry{};
    return i;
  }

  // What is free is in no queue and owns nothing.
  void free(Index i) noexcept {
    Entry& e = (*this)[i];
    e.queue = Queue::kNowhere;
    e.extra = nullptr;
    e.newer = free_;
    free_ = i;
  }

  // One past the largest index that was ever handed out: the bound for a scan.
  Index end() const noexcept { return end_; }

 private:
  static constexpr Index kShift = 8;
  static constexpr Index kBlock = Index{1} << kShift;
  static constexpr Index kMask = kBlock - 1;

  void add_block() {
    blocks_.reserve(blocks_.size() + 1 > blocks_.capacity() ? blocks_.size() * 2 + 1 : blocks_.capacity());
    auto block = std::make_unique<Entry[]>(kBlock);
    const Index base = static_cast<Index>(blocks_.size()) << kShift;
    for (Index i = kBlock; i-- > 0;) {
      if (base + i == kNone) continue;
      block[i].newer = free_;
      free_ = base + i;
    }
    blocks_.push_back(std::move(block));  // cannot throw: reserved above
    end_ = base + kBlock;
  }

  std::vector<std::unique_ptr<Entry[]>> blocks_;
  Index free_ = kNone;
  Index end_ = 0;
};

}  // namespace stillwarm
