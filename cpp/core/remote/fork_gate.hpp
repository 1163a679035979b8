// Forks and libraries that keep locks of their own: a fork waits until nobody is within such a library.
//
// Kerberos under libpq, OpenSSL and the resolver take locks for an instant while a connection is made. Were one held by
// another thread at a fork, the child could never connect: nobody there would let go of it.
//
// Thread rule: any thread. Nothing is called from within. Whoever comes while a fork waits is let in after it.
// Refuses to know: which libraries. A fork waits for at most `kPatience`: what takes longer waits for a server, and
// holds none of these locks meanwhile.
#pragma once

#include "core/base/entry.hpp"

namespace stillwarm {

// As long as it lives, this thread is within.
class WithinLibrary {
 public:
  static constexpr Nanos kPatience = 100'000'000;

  // From here on forks wait. Before any thread is within, and by one thread at a time: whoever registers a hook while
  // another forks would leave that undone in the child. After other hooks, for the last one is the first to run, and
  // what they lock need not be held while this one waits. Throws std::bad_alloc.
  static void prepare();

  WithinLibrary();
  WithinLibrary(const WithinLibrary&) = delete;
  WithinLibrary& operator=(const WithinLibrary&) = delete;
  ~WithinLibrary();

 private:
  const int process_;  // in the child of a fork whoever was within is not any more
};

}  // namespace stillwarm
