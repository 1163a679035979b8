#include "core/remote/postgres_tier.hpp"

#include <charconv>
#include <chrono>
#include <thread>

#include "core/base/clock.hpp"
#include "core/remote/guarded.hpp"
#include "core/remote/postgres_text.hpp"

namespace stillwarm {

namespace {

constexpr Nanos kFirstAnswer = 2'000'000'000;
constexpr Nanos kSetUpPause = 30'000'000'000;  // after a failure: a user without rights does not ask all the time
constexpr Nanos kSetUpSoon = 1'000'000'000;    // after it could not be asked
constexpr Nanos kSetUpTimeout = 10'000'000'000;

}  // namespace

PostgresTier::PostgresTier(Options options, std::shared_ptr<Inbox> inbox)
    : options_(std::move(options)),
      inbox_(std::move(inbox)),
      wants_writes_(options_.connection_string.find("target_session_attrs=read-write") != std::string::npos ||
                    options_.connection_string.find("target_session_attrs=primary") != std::string::npos),
      process_(options_.process),
      setup_(options_.setup),
      sql_(std::make_shared<const PostgresSql>(options_.schema, tables_, 0)) {}

std::unique_ptr<PostgresLink> PostgresTier::open() {
  auto link = std::make_unique<PostgresLink>(options_.connection_string, !options_.pooler);
  if (link->server_version() < 130000) {
    throw TierFailure(
        {TierFault::kRejected, "0A000",
         "the server is PostgreSQL " + std::to_string(link->server_version() / 10000) + "; accepted: 13 or newer"});
  }
  // The server may have stopped between the greeting and this.
  Watchdog watchdog;
  std::string seen;
  guarded(watchdog, *link, kFirstAnswer, [&] {
    if (name_life(*link, seen)) seen = link->run(std::string("SELECT pg_current_snapshot()::text")).at(0, 0);
  });
  // Before anything that this process keeps is read: messages from here on concern it.
  inbox_->begin_from(seen, link->life);
  return link;
}

std::unique_ptr<Link> PostgresTier::connect(TierError& error) {
  try {
    auto link = open();
    return std::make_unique<PostgresConnection>(shared_from_this(), std::move(link));
  } catch (const TierFailure& e) {
    error = e.error;
    return nullptr;
  }
}

std::uint32_t PostgresTier::add_table(OwnTable table, std::string setup) {
  const std::lock_guard lock(mutex_);
  setup_.push_back(std::move(setup));
  tables_.push_back(std::move(table));
  sql_ = std::make_shared<const PostgresSql>(options_.schema, tables_, static_cast<unsigned>(tables_.size()));
  return static_cast<std::uint32_t>(tables_.size());
}

std::shared_ptr<const PostgresSql> PostgresTier::sql() const {
  const std::lock_guard lock(mutex_);
  return sql_;
}

std::string PostgresTier::process() const {
  const std::lock_guard lock(mutex_);
  return process_;
}

void PostgresTier::set_process(const std::string& process) {
  const std::lock_guard lock(mutex_);
  process_ = process;
  setting_up_ = false;  // whoever was at it is the parent's
}

bool PostgresTier::set_up(Nanos since) {
  const Nanos until = since + options_.timeout / 5 * 4;  // for the thread that is at it
  for (;; std::this_thread::sleep_for(std::chrono::milliseconds(5))) {
    const std::lock_guard lock(mutex_);
    const Nanos now = steady_now();
    if (set_up_at_ > since) return true;
    if (set_up_failed_at_ > since) throw TierFailure(set_up_error_);
    if (now >= until || now < set_up_from_) return false;
    if (setting_up_) continue;
    auto* share = new std::shared_ptr<PostgresTier>(shared_from_this());
    setting_up_ = start_thread(
        [](void* given) {
          const std::unique_ptr<std::shared_ptr<PostgresTier>> mine(static_cast<std::shared_ptr<PostgresTier>*>(given));
          (*mine)->make_tables();
        },
        share);
    if (!setting_up_) delete share;
  }
}

// On a thread and a connection of its own: it may take longer than the operation that met the lack may wait.
void PostgresTier::make_tables() {
  TierError error;
  try {
    std::vector<std::string> statements;
    {
      const std::lock_guard lock(mutex_);
      statements = setup_;
    }
    const auto link = open();
    Watchdog watchdog;
    guarded(watchdog, *link, kSetUpTimeout, [&] {
      if (!options_.pooler) link->run("SET statement_timeout = " + std::to_string(kSetUpTimeout / 1'000'000));
      for (const std::string& text : statements) link->run(text);
    });
    if (worked_) inbox_->post({"all", false});  // the tables are new: what was known of older ones holds no more
  } catch (const TierFailure& failure) {
    error = failure.error;
  } catch (const std::exception& failure) {  // no memory
    error.fault = TierFault::kUnavailable;
  }
  const std::lock_guard lock(mutex_);
  setting_up_ = false;
  const Nanos now = steady_now();
  (error ? set_up_failed_at_ : set_up_at_) = now;
  set_up_from_ = !error ? 0 : now + (error.fault == TierFault::kRejected ? kSetUpPause : kSetUpSoon);
  set_up_error_ = std::move(error);
}

TierError PostgresTier::name_life(PostgresLink& link, std::string& seen) {
  try {
    Rows rows = link.run(sql()->life, {});
    if (rows.size() == 0) {
      link.run(sql()->name_life, {{process() + ":" + std::to_string(steady_now())}});
      rows = link.run(sql()->life, {});
    }
    link.life = rows.at(0, 1);
    seen = rows.at(0, 0);
    return {};
  } catch (const TierFailure& failure) {
    if (failure.error.fault != TierFault::kRejected) throw;
    link.life.clear();  // no tables yet, who may only read, or a server that only reads for now
    return failure.error;
  }
}

void PostgresTier::poll(PostgresLink& link, std::span<Poll* const> polls) {
  const Nanos began = Clock::now();
  const auto [seen, round] = inbox_->begin_poll();
  std::vector<std::string> asked;
  for (const Poll* p : polls) asked.insert(asked.end(), p->asked.begin(), p->asked.end());
  const Rows rows = link.run(
      sql()->poll, {{options_.namespace_name}, {seen}, {process()}, {array_of(std::span<const std::string>(asked))}});
  if (rows.null(0, 5)) {
    std::string now;
    name_life(link, now);
  } else {
    link.life = rows.at(0, 5);
  }
  std::vector<Message> messages;
  if (inbox_->is_another(link.life) || rows.at(0, 1) == "t" || rows.size() > PostgresSql::kMostPolled) {
    messages.push_back({"all", false});
  } else {
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (!rows.null(i, 3)) messages.push_back({std::string(rows.at(i, 3)), rows.at(i, 4) == "t"});
    }
  }
  std::vector<std::string> outcomes;
  if (!rows.null(0, 2)) outcomes = texts_of(rows.at(0, 2));
  std::size_t next = 0;
  for (Poll* p : polls) {
    for (std::size_t i = 0; i < p->asked.size(); ++i, ++next) {
      p->outcomes.push_back(next < outcomes.size() ? outcomes[next] : "");
    }
  }
  inbox_->end_poll(std::string(rows.at(0, 0)), round, began, std::move(messages), link.life);
}

}  // namespace stillwarm
