// Works for buckets, on the connections to a cluster's nodes. Thread rule and what it refuses to know: see
// redis_nodes.hpp.
#include <algorithm>
#include <array>
#include <deque>
#include <utility>

#include "core/base/clock.hpp"
#include "core/remote/redis_cluster.hpp"
#include "core/remote/redis_nodes.hpp"

namespace stillwarm {

namespace {

// What it answers is that it is of no use, for every key that it has. A slot that is moving says nothing of its node.
bool is_useless(const TierError& error) {
  constexpr std::array<std::string_view, 4> kStates = {"CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY"};
  return std::find(kStates.begin(), kStates.end(), error.state) != kStates.end();
}

bool begins_with(const OwnedReply& reply, std::string_view word) {
  const auto error = reply.error();
  return error && error->starts_with(word);
}

}  // namespace

RedisNodes::Node& RedisNodes::node_of(std::uint32_t bucket, Begun& now) {
  const RedisSlots::Owner owner = cluster_.slots().owner(bucket);
  Node& node = node_at(owner.place);
  permit(node);
  connect(node, left(kOnDemand));
  now = {owner.epoch, node.opened};
  return node;
}

void RedisNodes::run(std::span<Task> tasks) {
  const Round round(*this);
  refresh();
  begin(tasks);
  run_raw(tasks);
  for (Task& task : tasks) {
    if (task.error) continue;
    Node& node = *nodes_[task.node];
    try {
      if (node.session == nullptr) throw TierFailure({TierFault::kUnavailable, "", "the connection was lost"});
      task.work->take(*node.session, task.replies);
    } catch (const TierFailure& failure) {
      task.error = failure.error;
      if (is_useless(task.error)) node.outcome = RedisMasters::Outcome::kFailed;
      if (node.session != nullptr && !node.session->link().usable()) lose(node);
    }
  }
}

// Meets the marks of buckets that this connection does not know yet, all in one round trip.
void RedisNodes::begin(std::span<Task> tasks) {
  std::deque<RedisBeginning> works;
  std::vector<Task> begins;
  for (const Task& task : tasks) {
    const auto same = [&](const Task& other) { return other.bucket == task.bucket; };
    if (std::any_of(begins.begin(), begins.end(), same)) continue;
    try {
      Begun now;
      node_of(task.bucket, now);
      if (begun_[task.bucket] == now) continue;
    } catch (const TierFailure&) {
      continue;  // the task meets the same
    }
    works.emplace_back(cluster_.bucket(task.bucket));
    begins.emplace_back(task.bucket, &works.back(), true);
    begins.back().begins = true;
  }
  if (begins.empty()) return;
  run_raw(begins);
  for (Task& task : begins) {
    if (task.error) continue;
    Node& node = *nodes_[task.node];
    try {
      if (node.session == nullptr) continue;
      const RedisSlots::Owner owner = cluster_.slots().owner(task.bucket);
      task.work->take(*node.session, task.replies);
      if (owner.place == node.place) begun_[task.bucket] = {owner.epoch, node.opened};
    } catch (const TierFailure&) {  // the task meets it itself
    }
  }
}

void RedisNodes::run_raw(std::span<Task> tasks) {
  for (Task& task : tasks) ask(task);
  for (const auto& node : nodes_) {
    if (node->session == nullptr) continue;
    try {
      node->session->link().send();
    } catch (const TierFailure&) {  // whoever reads finds out
    }
  }
  for (Task& task : tasks) {
    if (!task.error && !task.again) read(task);
  }
  for (Task& task : tasks) follow(task);
}

void RedisNodes::ask(Task& task) {
  try {
    Begun now;
    Node& node = node_of(task.bucket, now);
    task.node = node.index;
    if (!task.begins && begun_[task.bucket] != now) {  // it moved this very moment, or could not be met
      task.again = true;
      return;
    }
    task.due = task.work->ask(*node.session);
    task.sent = true;
  } catch (const TierFailure& failure) {
    task.error = failure.error;
  }
}

void RedisNodes::read(Task& task) {
  Node& node = *nodes_[task.node];
  try {
    if (node.session == nullptr) throw TierFailure({TierFault::kUnavailable, "", "the connection was lost"});
    task.replies = replies(node, task.due);
  } catch (const TierFailure& failure) {
    task.error = failure.error;
  }
}

const OwnedReply* RedisNodes::redirect_in(const Task& task) {
  for (const auto& reply : task.replies) {
    if (begins_with(reply, "MOVED ") || begins_with(reply, "ASK ") || begins_with(reply, "NOSCRIPT")) return &reply;
  }
  return nullptr;
}

// One task after the other: nothing else is on its way.
void RedisNodes::follow(Task& task) {
  bool repeated = false;
  for (int hops = 0;; ++hops) {
    const OwnedReply* const redirect = task.error ? nullptr : redirect_in(task);
    if (task.error) {
      if (!task.repeats || repeated || cut_ || task.error.fault != TierFault::kUnavailable) return;
      repeated = true;
      refresh();
    } else if (redirect == nullptr && !task.again) {
      return;
    }
    if (hops == kMostRedirects) {
      task.error = {TierFault::kUnavailable, "MOVED", "a cluster's nodes sent each other's requests on too often"};
      return;
    }
    try {
      Node* node = nullptr;
      bool asking = false;
      if (redirect != nullptr && begins_with(*redirect, "ASK ")) {
        const auto place = RedisSlots::place_in(*redirect->error(), nodes_[task.node]->place);
        if (!place) throw TierFailure(redis_error(*redirect->error()));
        node = &node_at(*place);
        permit(*node);
        connect(*node, left(kOnDemand));
        asking = true;
      } else {
        if (redirect != nullptr && begins_with(*redirect, "MOVED ")) {
          cluster_.slots().moved(task.bucket, *redirect->error(), nodes_[task.node]->place);
        }
        Begun now;
        node = &node_of(task.bucket, now);
        if (redirect != nullptr && begins_with(*redirect, "NOSCRIPT")) node->session->renewed(task.replies);
        if (!task.begins && begun_[task.bucket] != now) {
          RedisBeginning meets(cluster_.bucket(task.bucket));
          if (!meet(*node, meets, task)) continue;
          begun_[task.bucket] = now;
        }
      }
      task.error = {};
      task.again = false;
      task.node = node->index;
      node->session->link().set_asking(asking);
      task.sent = true;
      task.due = task.work->ask(*node->session);
      node->session->link().set_asking(false);
      task.replies = asking ? read_asked(*node, task.due) : replies(*node, task.due);
    } catch (const TierFailure& failure) {
      task.error = failure.error;
      for (const auto& node : nodes_) {
        if (node->session == nullptr) continue;
        node->session->link().set_asking(false);
        if (!node->session->link().usable()) lose(*node);
      }
    }
  }
}

// Meets the bucket's marks before the task itself. False: they have moved, and the task with them.
bool RedisNodes::meet(Node& node, RedisWork& work, Task& task) {
  try {
    auto told = replies(node, work.ask(*node.session));
    if (node.session->renewed(told)) told = replies(node, work.ask(*node.session));
    work.take(*node.session, told);
    return true;
  } catch (const TierFailure& failure) {
    if (failure.error.state != "MOVED") throw;
    cluster_.slots().moved(task.bucket, failure.error.message, node.place);
    task.error = {};
    task.replies.clear();
    task.again = true;
    return false;
  }
}

std::vector<OwnedReply> RedisNodes::read_asked(Node& node, std::size_t due) {
  auto told = replies(node, 2 * due);  // each after that of ASKING
  for (std::size_t i = 0; i < due; ++i) told[i] = std::move(told[2 * i + 1]);
  while (told.size() > due) told.pop_back();
  return told;
}

}  // namespace stillwarm
