// Forks and libraries that keep locks of their own: a fork waits until nobody is within such a library.
//
// Kerberos under libpq, OpenSSL and the resolver take locks for an instant while a connection is made. Were one held by
// another thread at a fork, the child could never connect: nobody there would let go of it.
//
// Thread rule: any thread. Nothing is called from within. Whoever comes while a fork waits is let in after it.
// Refuses to know: which libraries. A fork waits for at most `kPatience`, for what takes longer waits for a server, and
// no lock is held meanwhile.
#pragma once

#include "core/base/entry.hpp"

namespace stillwarm {

// As long as it lives, this thread is within. Throws std::bad_alloc.
class WithinLibrary {
 public:
  static constexpr Nanos kPatience = 300'000'000;

  WithinLibrary();
  WithinLibrary(const WithinLibrary&) = delete;
  WithinLibrary& operator=(const WithinLibrary&) = delete;
  ~WithinLibrary();
};

}  // namespace stillwarm
