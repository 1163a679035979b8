// The budgets by name. Thread rule and scheme: see the header.
#include "core/retry/budget.hpp"

namespace stillwarm {

Budget& Budgets::named(std::string_view name) {
  const auto found = by_name_.find(name);
  if (found != by_name_.end()) return found->second;
  return by_name_.try_emplace(std::string(name)).first->second;
}

void Budgets::refill() noexcept {
  for (auto& [name, budget] : by_name_) budget.refill();
}

Budgets& Budgets::of_process() {
  // Never destroyed: a daemon thread may still succeed or fail while the interpreter exits.
  static Budgets& all = *new Budgets;
  return all;
}

}  // namespace stillwarm
