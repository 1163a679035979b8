// The arithmetic of backoff. Thread rule and formulas: see the header.
#include "core/retry/backoff.hpp"

#include <algorithm>
#include <cmath>

namespace stillwarm {
namespace {

// Nanos of a double that may be out of range (2^63 is the first double that does not fit).
Nanos saturated(double ns) noexcept { return ns < 0x1p63 ? static_cast<Nanos>(ns) : kForever; }

}  // namespace

Nanos Backoff::nominal(std::uint32_t n) const noexcept {
  if (base == 0) return 0;  // 0 * infinity is not a number
  const double grown = static_cast<double>(base) * std::pow(factor, n);
  return std::min(cap, saturated(grown));
}

Nanos Backoff::delay(std::uint32_t n, double random) const noexcept {
  const double middle = static_cast<double>(nominal(n));
  const double low = middle * (1.0 - below);
  const double high = std::min(static_cast<double>(cap), middle * (1.0 + above));
  return std::min(cap, saturated(low + random * (high - low)));
}

Nanos Backoff::at_least(Nanos wait, double random) const noexcept {
  return std::max(wait, saturated(static_cast<double>(wait) * (1.0 + random * std::max(below, above))));
}

}  // namespace stillwarm
