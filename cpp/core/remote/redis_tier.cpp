#include "core/remote/redis_tier.hpp"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <tuple>

#include "core/base/clock.hpp"
#include "core/remote/guarded.hpp"
#include "core/remote/redis_work.hpp"

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
  std::string text(bytes, '0');
  // The kernel at every call: a child of a fork has the numbers of no generator of its parent. Not std::random_device:
  // it asks the processor what it can, which under a hypervisor takes longer than all else that a `set` does here.
  for (std::size_t done = 0; done < bytes;) {
    const auto got = ::getrandom(text.data() + done, bytes - done, 0);
    if (got > 0) done += static_cast<std::size_t>(got);
    if (got < 0 && errno != EINTR) throw std::system_error(errno, std::generic_category(), "getrandom");
  }
  for (char& c : text) c = kLetters[static_cast<unsigned char>(c) & 63U];
  return text;
}

namespace {

// Sentinels may be late. One that says so of a replica is not asked first again.
void expect_master(RedisLink& link, RedisSentinels& sentinels) {
  link.append({"ROLE"});
  const OwnedReply role = link.read();
  if (role.error() && redis_error(*role.error()).state == "NOPERM") return;
  expect_ok(role);
  if (role.at(0).text() == "master") return;
  sentinels.doubt();
  throw TierFailure({TierFault::kUnavailable, "", "the sentinels name a server that is no master"});
}

}  // namespace

RedisTier::RedisTier(Options options, std::shared_ptr<Inbox> inbox)
    : options_(std::move(options)),
      names_(options_.bucket ? RedisNames(options_.namespace_name, *options_.bucket)
                             : RedisNames(options_.namespace_name)),
      inbox_(std::move(inbox)),
      process_(options_.process) {}

RedisTier::Where RedisTier::look() {
  Where where{options_.address, nullptr};
  if (options_.sentinels == nullptr) return where;
  Watchdog watchdog;
  RedisSentinels::Master master = options_.sentinels->master(watchdog);
  std::tie(where.address.host, where.address.port) = master.place;
  where.watch = std::make_unique<RedisWatch>(options_.sentinels, std::move(master));
  return where;
}

std::unique_ptr<RedisSession> RedisTier::open(const RedisAddress& address) {
  Watchdog watchdog;
  std::unique_ptr<RedisSession> session;
  try {
    session = std::make_unique<RedisSession>(address);
  } catch (const TierFailure&) {
    if (options_.sentinels != nullptr) options_.sentinels->doubt();
    throw;
  }
  guarded(watchdog, *session, address.connect_timeout, [&] {
    session->begin(address);
    if (session->link().in_cluster()) {
      throw TierFailure({TierFault::kRejected, "CLUSTER",
                         "the server is a node of a cluster; accepted: redis+cluster://host1:port,host2:port"});
    }
    if (options_.sentinels != nullptr) expect_master(session->link(), *options_.sentinels);
    RedisBeginning work(*this);
    session->run(work);
  });
  return session;
}

std::unique_ptr<Link> RedisTier::connect(TierError& error) {
  try {
    const std::uint64_t server = server_count();
    return std::make_unique<RedisConnection>(shared_from_this(), open(look().address), server);
  } catch (const TierFailure& e) {
    error = e.error;
    return nullptr;
  }
}

void RedisTier::lock() {
  mutex_.lock();
  repeats_.lock();
  if (options_.sentinels != nullptr) options_.sentinels->lock();
}

void RedisTier::unlock() {
  if (options_.sentinels != nullptr) options_.sentinels->unlock();
  repeats_.unlock();
  mutex_.unlock();
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
  const std::string& server = session.link().run_id();
  const auto [due, last] = repeats_.due(server, Clock::now());
  if (due.empty()) return;
  for (std::size_t i = 0; i < due.size(); i += kAtOnce) {
    std::vector<std::pair<std::string_view, bool>> some;
    for (std::size_t k = i; k < std::min(due.size(), i + kAtOnce); ++k) some.emplace_back(due[k].name, due[k].soft);
    invalidate(session, some);
  }
  repeats_.repeated(server, last);
}

RedisTier::Unheard RedisTier::note_ear() {
  const std::lock_guard lock(mutex_);
  Unheard unheard = std::exchange(unheard_, {});
  if (heard_.exchange(true)) unheard.all = true;
  return unheard;
}

void RedisTier::note_entry(std::string_view entry, std::string_view version) {
  constexpr std::size_t kMost = 1'000;
  if (heard_.load(std::memory_order_acquire)) return;
  const std::lock_guard lock(mutex_);
  if (heard_.load(std::memory_order_relaxed)) {  // an ear opened just now, and has not heard of this one
    if (const auto key = names_.key_of(entry)) inbox_->post({"key:" + std::string(*key), false});
  } else if (unheard_.entries.size() < kMost) {
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
  RedisPoll work(*this);
  session.run(work);
}

}  // namespace stillwarm
