// A remote tier put together, one object per cache: what every database has in common.
//
// Thread rule: with the GIL; what waits releases it. `lock` and `unlock` of its parts by the hooks around a fork.
// Refuses to know: which database it is (bind_postgres, bind_redis); values, keys and caches' settings (_tier.py).
#pragma once

#include <memory>
#include <string>

#include "core/remote/inbox.hpp"
#include "core/remote/listener.hpp"
#include "core/remote/recovery.hpp"
#include "core/remote/request_queue.hpp"

namespace stillwarm {

struct RemoteTier {
  struct Settings {
    unsigned connections = 2;
    Nanos timeout = 0;
    std::size_t most_waiting = 0;
    Nanos max_lag = 0;
    Nanos lease_age = 0;
  };

  RemoteTier(std::shared_ptr<Inbox> i, std::shared_ptr<Connector> c, std::shared_ptr<Ears> ears, const Settings& s);
  RemoteTier(const RemoteTier&) = delete;
  RemoteTier& operator=(const RemoteTier&) = delete;
  virtual ~RemoteTier();

  void close(Nanos wait);
  void after_fork_in_child(const std::string& process);

  const std::shared_ptr<Inbox> inbox;
  const std::shared_ptr<Connector> connector;
  const std::shared_ptr<RequestQueue> queue;
  std::shared_ptr<Recovery> recovery;
  const std::shared_ptr<Listener> listener;
  const std::shared_ptr<Echo> echo;
};

}  // namespace stillwarm
