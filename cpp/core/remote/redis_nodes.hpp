// Connections to the nodes of a cluster, used as one: works for buckets, sent to all nodes before the first is waited
// for, and sent on where a bucket has moved.
//
// Thread rule: one thread at a time; `cut` from any thread meanwhile, `forget` in the child of a fork.
// Refuses to know: what is asked, who asks; how requests become works (redis_cluster).
//
// A node that does not answer is left alone for a while: what it serves fails at once, and the rest goes on. Before the
// first work for a bucket on a connection, and whenever its slot has changed hands, the marks are met anew
// (RedisBeginning): the node may be a replica that became the master and lacks what came last.
//
// MOVED is believed for that bucket, and all slots are asked for soon; ASK is followed once, without believing it.
// After kMostRedirects it is unavailable, and so is what TRYAGAIN or CLUSTERDOWN answers.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "core/remote/redis_slots.hpp"
#include "core/remote/redis_work.hpp"
#include "core/remote/watchdog.hpp"

namespace stillwarm {

class RedisCluster;

class RedisNodes {
 public:
  static constexpr int kMostRedirects = 5;
  static constexpr std::size_t kMostNodes = 128;

  explicit RedisNodes(RedisCluster& cluster);
  RedisNodes(const RedisNodes&) = delete;
  RedisNodes& operator=(const RedisNodes&) = delete;

  // Finds the cluster, and connects to every master that answers. Throws TierFailure: there is none.
  void open();

  struct Task {
    Task(std::uint32_t b, RedisWork* w, bool r) : bucket(b), work(w), repeats(r) {}
    std::uint32_t bucket;
    RedisWork* work;
    bool repeats;     // it may be asked once more, where the connection broke
    TierError error;  // what befell it; none: its replies were taken
    bool sent = false;

    // RedisNodes' own.
    bool begins = false;  // is itself how a bucket is met
    bool again = false;   // was not asked yet
    std::size_t node = kMostNodes;
    std::size_t due = 0;
    std::vector<OwnedReply> replies;
  };
  // Performs them all; those of one bucket in their order.
  void run(std::span<Task> tasks);

  // A node, outside of buckets: by place. Throws TierFailure.
  RedisSession& session(const RedisPlace& place);
  // Whether there is a connection to it, and nothing is wrong with that.
  bool answers(const RedisPlace& place) const noexcept;
  // Asks a node that answers which serves what, if that is due.
  void refresh();
  // Whether some node answers; connections that do not are given up.
  bool ping();

  void cut() noexcept;
  void forget() noexcept;
  bool is_cut() const noexcept { return cut_.load(); }

 private:
  struct Node {
    RedisPlace place;
    std::size_t index = 0;
    std::unique_ptr<RedisSession> session;
    std::uint64_t opened = 0;  // a number of its own for each connection
    Nanos away_until = 0;
    Nanos pause = 0;
  };
  struct Begun {
    std::uint64_t epoch = 0, opened = 0;
    bool operator==(const Begun&) const = default;
  };

  Node& node_at(const RedisPlace& place);
  // If it is not connected. Throws TierFailure.
  void connect(Node& node, Nanos limit);
  // The connection is of no use.
  void lose(Node& node);
  void learn_from(Node& node);
  // Of the node that serves it, connected, and what `begun_` has to be.
  Node& node_of(std::uint32_t bucket, Begun& now);
  void begin(std::span<Task> tasks);
  void run_raw(std::span<Task> tasks);
  void ask(Task& task);
  void read(Task& task);
  void follow(Task& task);
  bool meet(Node& node, RedisWork& work, Task& task);
  static std::vector<OwnedReply> read_asked(RedisSession& session, std::size_t due);
  static const OwnedReply* redirect_in(const Task& task);

  RedisCluster& cluster_;
  std::vector<std::unique_ptr<Node>> nodes_;
  std::vector<Begun> begun_;  // by bucket
  std::uint64_t opened_ = 0;
  Watchdog watchdog_;
  std::mutex mutex_;  // places_ and the life of what they point to, against `cut`
  std::array<std::atomic<RedisSession*>, kMostNodes> places_{};
  std::atomic<bool> cut_{false};
};

}  // namespace stillwarm
