#include "core/remote/redis_nodes.hpp"

#include <algorithm>
#include <deque>
#include <utility>

#include "core/remote/guarded.hpp"
#include "core/remote/redis_cluster.hpp"

namespace stillwarm {

namespace {

constexpr Nanos kOnDemand = 100'000'000;  // for a connection while requests wait; new links have the whole timeout
constexpr Nanos kFirstPause = 50'000'000;
constexpr Nanos kLongestPause = 1'000'000'000;

bool begins_with(const OwnedReply& reply, std::string_view word) {
  const auto error = reply.error();
  return error && error->starts_with(word);
}

}  // namespace

RedisNodes::RedisNodes(RedisCluster& cluster) : cluster_(cluster), begun_(RedisNames::kBuckets) {}

// ------------------------------------------------------------------------------------------------------ connections

RedisNodes::Node& RedisNodes::node_at(const RedisPlace& place) {
  for (auto& node : nodes_) {
    if (node->place == place) return *node;
  }
  if (nodes_.size() == kMostNodes) throw TierFailure({TierFault::kUnavailable, "", "the cluster has too many nodes"});
  nodes_.push_back(std::make_unique<Node>());
  nodes_.back()->place = place;
  nodes_.back()->index = nodes_.size() - 1;
  return *nodes_.back();
}

void RedisNodes::connect(Node& node, Nanos limit) {
  if (node.session != nullptr) return;
  if (cut_) throw TierFailure({TierFault::kUnavailable, "", "no answer within the timeout"});
  if (steady_now() < node.away_until) {
    throw TierFailure({TierFault::kUnavailable, "", "a node of the cluster did not answer a moment ago"});
  }
  try {
    const RedisAddress address = cluster_.options().account.at(node.place, limit);
    auto session = std::make_unique<RedisSession>(address);
    {
      const std::lock_guard lock(mutex_);
      node.session = std::move(session);
      places_[node.index].store(node.session.get());
    }
    guarded(watchdog_, *node.session, limit, [&] { node.session->begin(address); });
    if (!node.session->link().in_cluster()) {
      throw TierFailure({TierFault::kRejected, "CLUSTER",
                         "the server is no node of a cluster; accepted: redis://host:port/0 for a server of its own"});
    }
    node.opened = ++opened_;
    node.pause = 0;
  } catch (const TierFailure&) {
    lose(node);
    node.pause = std::clamp(node.pause * 2, kFirstPause, kLongestPause);
    node.away_until = steady_now() + node.pause;
    throw;
  }
}

void RedisNodes::lose(Node& node) {
  std::unique_ptr<RedisSession> session;
  {
    const std::lock_guard lock(mutex_);
    places_[node.index].store(nullptr);
    session = std::move(node.session);
  }
  cluster_.slots().doubt();
}

void RedisNodes::open() {
  const Nanos limit = cluster_.options().account.connect_timeout;
  TierError error;
  bool found = false;
  for (const auto& place : cluster_.slots().candidates()) {
    try {
      Node& node = node_at(place);
      connect(node, limit);
      guarded(watchdog_, *node.session, limit, [&] { learn_from(node); });
      found = true;
      break;
    } catch (const TierFailure& failure) {
      if (!error || failure.error.fault == TierFault::kRejected) error = failure.error;
    }
  }
  if (!found) throw TierFailure(error);
  for (const auto& place : cluster_.slots().masters()) {
    try {
      connect(node_at(place), limit);
    } catch (const TierFailure&) {  // the rest works
    }
  }
}

void RedisNodes::learn_from(Node& node) {
  RedisLink& link = node.session->link();
  link.append({"CLUSTER", "SLOTS"});
  cluster_.slots().learn(link.read(), node.place, steady_now());
}

void RedisNodes::refresh() {
  if (!cluster_.slots().is_due(steady_now())) return;
  for (const auto& node : nodes_) {
    if (node->session == nullptr || cut_) continue;
    try {
      return guarded(watchdog_, *node->session, kOnDemand, [&] { learn_from(*node); });
    } catch (const TierFailure&) {
      lose(*node);
    }
  }
}

RedisSession& RedisNodes::session(const RedisPlace& place) {
  Node& node = node_at(place);
  connect(node, kOnDemand);
  return *node.session;
}

bool RedisNodes::answers(const RedisPlace& place) const noexcept {
  return std::any_of(nodes_.begin(), nodes_.end(),
                     [&](const auto& node) { return node->place == place && node->session != nullptr; });
}

bool RedisNodes::ping() {
  bool answers = false;
  for (const auto& node : nodes_) {
    if (node->session == nullptr) continue;
    try {
      node->session->link().run({"PING"});
      answers = true;
    } catch (const TierFailure&) {
      lose(*node);
    }
  }
  return answers && !cut_;
}

void RedisNodes::cut() noexcept {
  cut_ = true;
  const std::lock_guard lock(mutex_);
  for (auto& place : places_) {
    if (RedisSession* session = place.load()) session->cut();
  }
}

// Without the lock, which a thread may hold that does not exist here.
void RedisNodes::forget() noexcept {
  for (auto& place : places_) {
    if (RedisSession* session = place.load()) session->forget();
  }
}

// ------------------------------------------------------------------------------------------------------------ works

RedisNodes::Node& RedisNodes::node_of(std::uint32_t bucket, Begun& now) {
  const RedisSlots::Owner owner = cluster_.slots().owner(bucket);
  Node& node = node_at(owner.place);
  connect(node, kOnDemand);
  now = {owner.epoch, node.opened};
  return node;
}

void RedisNodes::run(std::span<Task> tasks) {
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
    task.replies = node.session->read(task.due);
  } catch (const TierFailure& failure) {
    task.error = failure.error;
    if (node.session != nullptr) lose(node);
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
        connect(*node, kOnDemand);
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
      task.replies = asking ? read_asked(*node->session, task.due) : node->session->read(task.due);
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
    node.session->run(work);
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

std::vector<OwnedReply> RedisNodes::read_asked(RedisSession& session, std::size_t due) {
  auto replies = session.read(2 * due);  // each after that of ASKING
  for (std::size_t i = 0; i < due; ++i) replies[i] = std::move(replies[2 * i + 1]);
  while (replies.size() > due) replies.pop_back();
  return replies;
}

}  // namespace stillwarm
