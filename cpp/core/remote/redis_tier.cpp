#include "core/remote/redis_tier.hpp"

#include <algorithm>
#include <random>
#include <tuple>

#include "core/base/clock.hpp"
#include "core/remote/guarded.hpp"

namespace stillwarm {

std::string redis_moment(std::string_view number, std::string_view incarnation) {
  std::string text(number);
  text += ':';
  text += number;
  text += ':';
  return moment_text(text, incarnation);
}

std::string random_text(std::size_t bytes) {
  static constexpr std::string_view kLetters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";
  // The device at every call: a child of a fork has the numbers of no generator of its parent.
  std::random_device device;
  std::string text(bytes, '0');
  for (std::size_t i = 0; i < bytes;) {
    auto number = device();
    for (int k = 0; k < 5 && i < bytes; ++k, ++i, number >>= 6) text[i] = kLetters[number & 63];
  }
  return text;
}

RedisTier::RedisTier(Options options, std::shared_ptr<Inbox> inbox)
    : options_(std::move(options)),
      names_(options_.namespace_name),
      inbox_(std::move(inbox)),
      process_(options_.process) {}

std::unique_ptr<RedisSession> RedisTier::open() {
  auto session = std::make_unique<RedisSession>(options_.address);
  Watchdog watchdog;
  std::string seen, incarnation;
  guarded(watchdog, *session, options_.address.connect_timeout, [&] {
    session->begin(options_.address);
    RedisCall first = call(RedisScript::kPoll);
    first.arguments.insert(first.arguments.end(), {"", "0"});
    const OwnedReply now = session->run(first);
    incarnation = now.at(0).text();
    seen = redis_moment(now.at(1).text(), {});
    repeat(*session);
  });
  // Before anything that this process keeps is read: messages from here on concern it.
  inbox_->begin_from(seen, incarnation);
  return session;
}

std::unique_ptr<Link> RedisTier::connect(TierError& error) {
  try {
    auto session = open();
    return std::make_unique<RedisConnection>(shared_from_this(), std::move(session));
  } catch (const TierFailure& e) {
    error = e.error;
    return nullptr;
  }
}

std::string RedisTier::process() const {
  const std::lock_guard lock(mutex_);
  return process_;
}

void RedisTier::set_process(const std::string& process) {
  const std::lock_guard lock(mutex_);
  process_ = process;
  repeats_.clear();  // they are the parent's
}

OwnedReply RedisTier::invalidate(RedisSession& session, std::span<const std::pair<std::string_view, bool>> what) {
  RedisCall asks = call(RedisScript::kInvalidate);
  asks.arguments.insert(asks.arguments.end(), {process(), names_.channel});
  for (const auto& [name, soft] : what) {
    const std::string key(name.starts_with("key:") ? name.substr(4) : "");
    asks.arguments.insert(asks.arguments.end(),
                          {std::string(name), soft ? "1" : "0", std::to_string(RedisNames::stripe(key)), key});
  }
  return session.run(asks);
}

void RedisTier::took(const RedisSession& session, const std::string& name, bool soft) {
  repeats_.took(session.link().run_id(), name, soft, Clock::now());
}

void RedisTier::repeat(RedisSession& session) {
  constexpr std::size_t kAtOnce = 500;
  const Nanos now = Clock::now();
  const std::string& server = session.link().run_id();
  const std::vector<Message> due = repeats_.due(server, now);
  if (due.empty()) return;
  for (std::size_t i = 0; i < due.size(); i += kAtOnce) {
    std::vector<std::pair<std::string_view, bool>> some;
    for (std::size_t k = i; k < std::min(due.size(), i + kAtOnce); ++k) some.emplace_back(due[k].name, due[k].soft);
    invalidate(session, some);
  }
  repeats_.repeated(server, now);
}

RedisTier::Unheard RedisTier::note_ear() {
  const std::lock_guard lock(mutex_);
  Unheard unheard = std::exchange(unheard_, {});
  if (heard_.exchange(true)) unheard.all = true;
  return unheard;
}

void RedisTier::note_found(std::string_view entry, std::string_view version) {
  constexpr std::size_t kMost = 1'000;
  if (heard_.load(std::memory_order_acquire)) return;
  const std::lock_guard lock(mutex_);
  if (unheard_.entries.size() < kMost) {
    unheard_.entries.emplace_back(entry, version);
  } else {
    unheard_.all = true;
  }
}

RedisCall RedisTier::call(RedisScript script, std::vector<std::string> keys) const {
  RedisCall call{script, {names_.marks, names_.log, names_.tags_1, names_.tags_2}, {random_text(8), names_.entries}};
  call.keys.insert(call.keys.end(), std::make_move_iterator(keys.begin()), std::make_move_iterator(keys.end()));
  return call;
}

void RedisTier::poll(RedisSession& session) {
  const Nanos began = Clock::now();
  std::string life = inbox_->server();
  auto [seen, round] = inbox_->begin_poll();
  for (std::string now; (now = inbox_->server()) != life;) {  // another's number under this life would be no number
    life = std::move(now);
    std::tie(seen, round) = inbox_->begin_poll();
  }
  RedisCall asks = call(RedisScript::kPoll);
  asks.arguments.push_back(seen.empty() ? "" : life);
  asks.arguments.push_back(std::to_string(xmax_of(seen)));
  const OwnedReply told = session.run(asks);
  const std::string incarnation(told.at(0).text());
  const std::string mine = process();
  std::vector<Message> messages;
  // Connections to two servers, one of which is cut off from the others by now. One that has no name heard it when the
  // connection was made.
  if (!session.link().run_id().empty()) repeat(session);
  if (told.at(2).text() == "all" || inbox_->is_another(incarnation)) {
    messages.push_back({"all", false});
  } else {
    for (std::size_t i = 3; i < told.size(); ++i) {
      const std::string_view one = told.at(i).text();  // origin NUL softness name
      const auto end = one.find('\0');
      if (end == std::string_view::npos || end + 2 > one.size() || one.substr(0, end) == mine) continue;
      messages.push_back({std::string(one.substr(end + 2)), one[end + 1] == '1'});
    }
  }
  inbox_->end_poll(redis_moment(told.at(1).text(), {}), round, began, std::move(messages), incarnation);
}

}  // namespace stillwarm
