// The PostgreSQL tier: requests become statements, rows become replies.
//
// Thread rule: PostgresTier from any thread (its tables under a lock of their own); each PostgresConnection by one
// thread at a time. Refuses to know: Python, values, who asks; how requests are queued and merged (request_queue).
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/remote/inbox.hpp"
#include "core/remote/postgres_sql.hpp"

namespace stillwarm {

class PostgresTier : public Connector, public std::enable_shared_from_this<PostgresTier> {
 public:
  struct Options {
    std::string connection_string;
    std::string namespace_name;
    std::string schema;
    std::string process;             // tells this process's own messages from others'
    std::vector<std::string> setup;  // statements that make what is missing
    bool pooler = false;             // a pooler in transaction mode: no session state
    Nanos timeout = 250'000'000;     // of an operation
  };

  PostgresTier(Options options, std::shared_ptr<Inbox> inbox);

  std::unique_ptr<Link> connect(TierError& error) override;

  // A new connection, unwrapped: for the listener. Throws TierFailure.
  std::unique_ptr<PostgresLink> open();

  // The slot of a type's own table.
  std::uint32_t add_table(OwnTable table, std::string setup);

  std::shared_ptr<const PostgresSql> sql() const;
  std::string process() const;
  void set_process(const std::string& process) override;
  const Options& options() const noexcept { return options_; }
  const std::shared_ptr<Inbox>& inbox() const noexcept { return inbox_; }
  // Whether the connection string asks for a server that takes writes: one that does so no longer is to be left.
  bool wants_writes() const noexcept { return wants_writes_; }

  void lock() override { mutex_.lock(); }
  void unlock() override { mutex_.unlock(); }

  // A poll on this connection, from what the inbox has seen to what it sees now. Throws TierFailure.
  void poll(PostgresLink& link, std::span<Poll* const> polls);

  // The life of the server that this connection belongs to gets its name or tells it, as of the snapshot `seen`. What
  // the server says where it cannot be named. Throws TierFailure if the connection is lost.
  TierError name_life(PostgresLink& link, std::string& seen);

  // Makes what is missing, unless somebody did after `since`. False: it failed a moment ago, or takes its time. Throws
  // TierFailure.
  bool set_up(Nanos since);
  void works() noexcept { worked_.store(true, std::memory_order_relaxed); }  // an answer came from the tables

 private:
  void make_tables();

  const Options options_;
  const std::shared_ptr<Inbox> inbox_;
  const bool wants_writes_;
  mutable std::mutex mutex_;
  std::string process_;
  std::vector<OwnTable> tables_;
  std::vector<std::string> setup_;
  std::shared_ptr<const PostgresSql> sql_;
  Nanos set_up_at_ = 0;
  Nanos set_up_failed_at_ = 0;
  Nanos set_up_from_ = 0;  // not before this moment
  bool setting_up_ = false;
  std::atomic<bool> worked_{false};
  TierError set_up_error_;
};

class PostgresConnection : public Link {
 public:
  PostgresConnection(std::shared_ptr<PostgresTier> tier, std::unique_ptr<PostgresLink> link)
      : tier_(std::move(tier)), link_(std::move(link)) {}

  bool serve(std::span<Request* const> batch) override;
  bool ping() override;
  void cut() noexcept override { link_->cut(); }
  void forget() noexcept override { link_->forget(); }

 private:
  void perform(std::span<Request* const> batch);
  void look_up(std::span<Request* const> batch);
  bool look_up_one(const Statement& statement, unsigned& in_vain, LookUp& request);
  void store(std::span<Request* const> batch);
  std::optional<std::string> born_of(const Store& store) const;
  void invalidate(std::span<Request* const> batch);
  void match(Invalidate& request);
  void lease(Lease& request);
  void flush(Flush& request);
  void query(Query& request);

  std::shared_ptr<PostgresTier> tier_;
  std::unique_ptr<PostgresLink> link_;
  Nanos name_at_ = 0;                         // not before: the life of the server gets its name
  unsigned in_vain_ = 0, named_in_vain_ = 0;  // short look-ups without an answer, in a row
};

}  // namespace stillwarm
