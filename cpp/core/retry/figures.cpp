// The figures by name. Thread rule: see the header.
#include "core/retry/figures.hpp"

namespace stillwarm {

RetryFigures& RetryNames::named(std::string_view name) {
  const auto found = by_name_.find(name);
  if (found != by_name_.end()) return found->second;
  return by_name_.try_emplace(std::string(name)).first->second;
}

void RetryNames::reset() noexcept {
  for (auto& [name, figures] : by_name_) figures = {};
}

RetryNames& RetryNames::of_process() {
  static RetryNames& all = *new RetryNames;  // never destroyed, as the budgets
  return all;
}

}  // namespace stillwarm
