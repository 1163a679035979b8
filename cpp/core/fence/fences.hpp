// Fences: numbers that a load compares itself with once, when it wants to store what it loaded.
//
// Thread rule: guarded by the cache's owner (the GIL in the extension).
// Refuses to know: keys. It sees their hashes.
//
// A key that is invalidated, set or deleted writes the number into its stripe, one of 4,096 chosen by hash. Two keys
// may share a stripe: that costs a lost fill, never an entry. A pattern stops every load that began before it.
#pragma once

#include <array>
#include <cstdint>

namespace stillwarm {

class Fences {
 public:
  static constexpr std::size_t kStripes = 4096;

  void raise_key(std::uint64_t hash, std::uint64_t number) noexcept { stripes_[hash % kStripes] = number; }
  void raise_all(std::uint64_t number) noexcept { all_ = number; }

  // May a load that was born then store its result?
  bool passes(std::uint64_t hash, std::uint64_t born) const noexcept {
    return stripes_[hash % kStripes] < born && all_ < born;
  }
  // May a caller that comes now still wait for a load that was born then?
  bool joinable(std::uint64_t born) const noexcept { return all_ < born; }

 private:
  std::array<std::uint64_t, kStripes> stripes_{};
  std::uint64_t all_ = 0;
};

}  // namespace stillwarm
