// Connections to the nodes of a cluster, used as one: works for buckets, sent to all nodes before the first is waited
// for, and sent on where a bucket has moved.
//
// Thread rule: one thread at a time; `cut` from any thread meanwhile, `forget` in the child of a fork.
// Refuses to know: what is asked, who asks; how requests become works (redis_cluster).
//
// A node that does not answer is left alone for a while (redis_masters): what it serves fails at once, and the rest
// goes on. All that one `run` waits for has one limit, so a node that is frozen holds nobody up for longer than that;
// what the others have answered by then counts. Before the first work for a bucket on a connection, and whenever its
// slot has changed hands, the marks are met anew (RedisBeginning): the node may be a replica that became the master and
// lacks what came last.
//
// MOVED is believed for that bucket, and all slots are asked for soon; ASK is followed once, without believing it.
// After kMostRedirects it is unavailable, and so is what TRYAGAIN or CLUSTERDOWN answers.
#pragma once

#include <array>
#include <atomic>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "core/remote/redis_masters.hpp"
#include "core/remote/redis_slots.hpp"
#include "core/remote/redis_work.hpp"
#include "core/remote/watchdog.hpp"

namespace stillwarm {

class RedisCluster;

class RedisNodes {
 public:
  static constexpr int kMostRedirects = 5;
  static constexpr std::size_t kMostNodes = 128;
  // For a connection while requests wait; new links have the whole timeout.
  static constexpr Nanos kOnDemand = 100'000'000;

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

  // Until when what follows may wait, and how long each `run` of it.
  void set_limit(Nanos until, Nanos each = kForever) noexcept { until_ = until, each_ = each; }
  // Asks also masters whose circuit is open, and says what came of it.
  void set_probing() noexcept { probing_ = true; }

  // One command to a node, outside of buckets; the answer may be an error. Throws TierFailure.
  OwnedReply command(const RedisPlace& place, std::span<const std::string_view> words);
  OwnedReply command(const RedisPlace& place, std::initializer_list<std::string_view> words) {
    return command(place, std::span<const std::string_view>(words.begin(), words.size()));
  }
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
    // Of this round.
    bool permitted = false, refused = false;
    RedisMasters::Outcome outcome = RedisMasters::Outcome::kUnasked;
  };
  // What is asked at once: one limit, and one report for each master that was asked.
  class Round {
   public:
    explicit Round(RedisNodes& nodes) : nodes_(nodes) { nodes_.begin_round(); }
    Round(const Round&) = delete;
    Round& operator=(const Round&) = delete;
    ~Round() { nodes_.end_round(); }

   private:
    RedisNodes& nodes_;
  };
  struct Begun {
    std::uint64_t epoch = 0, opened = 0;
    bool operator==(const Begun&) const = default;
  };

  void begin_round() noexcept;
  void end_round() noexcept;
  // What is left of the round, `most` at most. Throws TierFailure: nothing.
  Nanos left(Nanos most) const;
  // Throws TierFailure: the circuit of this master is open.
  void permit(Node& node);
  // As many replies, within the round. Throws TierFailure, and then the connection is lost.
  std::vector<OwnedReply> replies(Node& node, std::size_t due);

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
  std::vector<OwnedReply> read_asked(Node& node, std::size_t due);
  static const OwnedReply* redirect_in(const Task& task);

  RedisCluster& cluster_;
  std::vector<std::unique_ptr<Node>> nodes_;
  std::vector<Begun> begun_;  // by bucket
  std::uint64_t opened_ = 0;
  Nanos until_ = kForever, each_ = kForever, round_until_ = kForever;
  bool probing_ = false;
  bool hurried_ = false;  // another node has used up this round's time: who is late now may be well
  Watchdog watchdog_;
  std::mutex mutex_;  // places_ and the life of what they point to, against `cut`
  std::array<std::atomic<RedisSession*>, kMostNodes> places_{};
  std::atomic<bool> cut_{false};
};

}  // namespace stillwarm
