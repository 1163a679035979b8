// What a Listener hears with: a connection of its own to some database, and where such connections come from.
//
// Thread rule: an Ear is used by one thread at a time; `cut` and `forget` from any. Everything but those throws
// TierFailure. Whoever calls watches the time.
// Refuses to know: when it is polled, what is done with leases, trust.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "core/remote/remote_tier.hpp"

namespace stillwarm {

struct HeldLease {
  std::string key, owner;
  bool operator==(const HeldLease&) const = default;
};

class Ear {
 public:
  Ear() = default;
  Ear(const Ear&) = delete;
  Ear& operator=(const Ear&) = delete;
  virtual ~Ear() = default;

  // Whether it hears of what happens; one that does not is only asked.
  virtual bool listens() const noexcept = 0;
  // Begins to listen, if it has not, and takes what arrived; how many notifications.
  virtual int heard() = 0;
  // Asks what happened, into the tier's inbox.
  virtual void poll() = 0;
  // Tells the others that something happened.
  virtual void tell() = 0;
  virtual void renew(std::span<const HeldLease> leases, Nanos age) = 0;
  // Throws if the connection is gone.
  virtual void check() = 0;
  // Readable when something arrives.
  virtual int descriptor() const noexcept = 0;

  virtual void cut() noexcept = 0;
  // In the child of a fork.
  virtual void forget() noexcept = 0;
};

class Ears {
 public:
  Ears() = default;
  Ears(const Ears&) = delete;
  Ears& operator=(const Ears&) = delete;
  virtual ~Ears() = default;

  // Blocks until there is one, for a bounded time. Throws TierFailure.
  virtual std::unique_ptr<Ear> open_ear() = 0;
  // Whether what an operation met since `since` is mended, so that the same ear may go on. Throws TierFailure.
  virtual bool mended(const TierError& error, Nanos since) = 0;
  // The link is gone: nothing is trusted before the next poll.
  virtual void lost() noexcept = 0;
};

}  // namespace stillwarm
