// The clock of every deadline in memory: steady, cheap, and movable by tests.
//
// Thread rule: now() from any thread; set_manual and resync under the owner's lock (the GIL in the extension).
// Refuses to know: wall time. Nothing in stillwarm is compared with the time of day.
//
// CLOCK_MONOTONIC_COARSE costs 3 ns and moves every 1 to 10 ms, which is why durations below 10 ms are refused. It
// stands still while the machine sleeps; the time slept is CLOCK_BOOTTIME - CLOCK_MONOTONIC, read at the start of the
// process and again by resync().
#pragma once

#include <ctime>

#include <atomic>

#include "core/base/entry.hpp"

namespace stillwarm {

class Clock {
 public:
  [[gnu::always_inline]] static Nanos now() noexcept {
    const Nanos manual = manual_.load(std::memory_order_relaxed);
    if (manual != 0) [[unlikely]]
      return manual;
    return read(CLOCK_MONOTONIC_COARSE) + slept_.load(std::memory_order_relaxed);
  }

  // Takes over what the machine slept since the last call, and says by how much now() has moved for it: what was read
  // before is that much too early. At most once a second, so that a write may call it always.
  static Nanos resync(Nanos now) noexcept {
    if (is_manual() || now - synced_.load(std::memory_order_relaxed) < 1'000'000'000) return 0;
    synced_.store(now, std::memory_order_relaxed);
    // Two clocks read one after the other differ by the time between the reads; a real sleep is longer than 1 ms.
    const Nanos moved = read_slept() - slept_.load(std::memory_order_relaxed);
    if (moved <= 1'000'000) return 0;
    slept_.fetch_add(moved, std::memory_order_relaxed);
    return moved;
  }

  // Tests: time stands at `t` (> 0) until it is moved again; 0 gives the real clock back.
  static void set_manual(Nanos t) noexcept { manual_.store(t, std::memory_order_relaxed); }
  static bool is_manual() noexcept { return manual_.load(std::memory_order_relaxed) != 0; }

 private:
  static Nanos read(clockid_t id) noexcept {
    timespec t;
    clock_gettime(id, &t);
    return static_cast<Nanos>(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
  }

  static Nanos read_slept() noexcept { return read(CLOCK_BOOTTIME) - read(CLOCK_MONOTONIC); }

  static inline std::atomic<Nanos> manual_{0};
  static inline std::atomic<Nanos> slept_{read_slept()};
  static inline std::atomic<Nanos> synced_{0};
};

}  // namespace stillwarm
