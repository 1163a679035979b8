#include "core/remote/redis_nodes.hpp"

#include <poll.h>

#include <algorithm>
#include <utility>

#include "core/remote/guarded.hpp"
#include "core/remote/redis_cluster.hpp"

namespace stillwarm {

namespace {

constexpr Nanos kLeastRound = 40'000'000;  // also where what was asked before has taken all the time
constexpr Nanos kShortestAway = 50'000'000;
constexpr Nanos kLongestAway = 1'000'000'000;

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
    if (limit < std::min(kOnDemand, cluster_.options().timeout) / 2) throw;  // which says nothing of the node
    node.outcome = RedisMasters::Outcome::kFailed;
    node.pause = std::clamp(node.pause * 2, kShortestAway, kLongestAway);
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
  const auto is_well = [&](const auto& place) { return !cluster_.masters().failed_lately(place, steady_now()); };
  auto candidates = cluster_.slots().candidates();
  std::stable_partition(candidates.begin(), candidates.end(), is_well);
  for (const auto& place : candidates) {
    try {
      Node& node = node_at(place);
      connect(node, limit);
      guarded(watchdog_, *node.session, limit, [&] { learn_from(node); });
      found = true;
      cluster_.masters().probed(place, true, steady_now());
      break;
    } catch (const TierFailure& failure) {
      cluster_.masters().probed(place, false, steady_now());
      if (!error || failure.error.fault == TierFault::kRejected) error = failure.error;
    }
  }
  if (!found) throw TierFailure(error);
  for (const auto& place : cluster_.slots().masters()) {
    if (answers(place) || !is_well(place)) continue;
    try {
      connect(node_at(place), limit);
    } catch (const TierFailure&) {  // the rest works
      cluster_.masters().probed(place, false, steady_now());
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
    if (node->session == nullptr || cut_ || cluster_.masters().failed_lately(node->place, steady_now())) continue;
    try {
      return guarded(watchdog_, *node->session, left(kOnDemand), [&] { learn_from(*node); });
    } catch (const TierFailure&) {
      node->outcome = RedisMasters::Outcome::kFailed;
      lose(*node);
    }
  }
}

OwnedReply RedisNodes::command(const RedisPlace& place, std::span<const std::string_view> words) {
  const Round round(*this);
  Node& node = node_at(place);
  permit(node);
  connect(node, left(kOnDemand));
  node.session->link().append(words);
  return std::move(replies(node, 1).front());
}

bool RedisNodes::answers(const RedisPlace& place) const noexcept {
  return std::any_of(nodes_.begin(), nodes_.end(),
                     [&](const auto& node) { return node->place == place && node->session != nullptr; });
}

bool RedisNodes::ping() {
  bool answers = false;
  set_limit(steady_now() + cluster_.options().timeout / 5 * 4);
  const Round round(*this);
  for (const auto& node : nodes_) {
    if (node->session != nullptr) node->session->link().append({"PING"});
  }
  for (const auto& node : nodes_) {
    if (node->session == nullptr) continue;
    try {
      expect_ok(replies(*node, 1).front());
      answers = true;
      cluster_.masters().probed(node->place, true, steady_now());
    } catch (const TierFailure&) {  // the others may
      if (!cut_) cluster_.masters().probed(node->place, false, steady_now());
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

// ----------------------------------------------------------------------------------------------------------- rounds

void RedisNodes::begin_round() noexcept {
  const Nanos now = steady_now();
  round_until_ = each_ == kForever ? until_ : std::min(until_, now + each_);
  const Nanos whole = cluster_.options().timeout / 5 * 4;
  hurried_ = round_until_ - now < whole / 2;
  round_until_ = std::max(round_until_, now + std::min(kLeastRound, whole));
  for (const auto& node : nodes_) {
    node->permitted = node->refused = false;
    node->outcome = RedisMasters::Outcome::kUnasked;
  }
}

void RedisNodes::end_round() noexcept {
  const Nanos now = steady_now();
  for (const auto& node : nodes_) {
    // Whoever cut them all does not know which one was to blame.
    if (cut_ && node->outcome == RedisMasters::Outcome::kFailed) node->outcome = RedisMasters::Outcome::kUnasked;
    if (probing_) {
      if (node->outcome == RedisMasters::Outcome::kUnasked) continue;
      cluster_.masters().probed(node->place, node->outcome == RedisMasters::Outcome::kAnswered, now);
    } else if (node->permitted) {
      cluster_.masters().report(node->place, node->outcome, now);
    }
  }
}

Nanos RedisNodes::left(Nanos most) const {
  const Nanos left = round_until_ - steady_now();
  if (left <= 0) throw TierFailure({TierFault::kTimeout, "", "no answer within the timeout"});
  return std::min(most, left);
}

void RedisNodes::permit(Node& node) {
  if (probing_ || node.permitted) return;
  if (!node.refused && cluster_.masters().allow(node.place, steady_now())) {
    node.permitted = true;
    return;
  }
  node.refused = true;
  throw TierFailure({TierFault::kUnavailable, "", "the circuit breaker of a master of the cluster is open"});
}

std::vector<OwnedReply> RedisNodes::replies(Node& node, std::size_t due) {
  try {
    RedisLink& link = node.session->link();
    link.send();
    std::vector<OwnedReply> replies;
    replies.reserve(due);
    while (replies.size() < due) {
      if (auto reply = link.read_if_there()) {
        replies.push_back(std::move(*reply));
        continue;
      }
      pollfd ready{link.descriptor(), POLLIN, 0};
      ::poll(&ready, 1, static_cast<int>(std::min<Nanos>(left(kForever) / 1'000'000 + 1, 60'000)));
    }
    if (node.outcome == RedisMasters::Outcome::kUnasked) node.outcome = RedisMasters::Outcome::kAnswered;
    return replies;
  } catch (const TierFailure& failure) {
    if (!hurried_ || failure.error.fault != TierFault::kTimeout) node.outcome = RedisMasters::Outcome::kFailed;
    lose(node);
    throw;
  } catch (...) {  // no memory: there is more to be read
    lose(node);
    throw;
  }
}

}  // namespace stillwarm
