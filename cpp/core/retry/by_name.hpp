// What policies of one name share, of a whole process: budgets, figures.
//
// Thread rule: the owner's lock (the GIL in the extension).
// Refuses to know: what is shared.
//
// Names are never removed: a name is part of a program's text, and policies keep the address.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

namespace stillwarm {

template <class T>
class ByName {
 public:
  using Map = std::map<std::string, T, std::less<>>;  // a node's address is stable

  ByName() = default;
  ByName(const ByName&) = delete;
  ByName& operator=(const ByName&) = delete;

  // That of the name, made when it is first named. Throws std::bad_alloc.
  T& named(std::string_view name) {
    const auto found = by_name_.find(name);
    return found != by_name_.end() ? found->second : by_name_.try_emplace(std::string(name)).first->second;
  }

  const Map& all() const noexcept { return by_name_; }

  // Calls f(that of the name) for every name.
  template <class F>
  void each(F&& f) {
    for (auto& [name, one] : by_name_) f(one);
  }

  // Never destroyed: a daemon thread may still succeed or fail while the interpreter exits.
  static ByName& of_process() {
    static ByName& all = *new ByName;
    return all;
  }

 private:
  Map by_name_;
};

}  // namespace stillwarm
