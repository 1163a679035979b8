// One connection to PostgreSQL: statements with text parameters in, rows of text out, and errors that say what they
// mean for the next call.
//
// Thread rule: used by one thread at a time; `cut` from any thread meanwhile.
// Refuses to know: tables, caches, which statements there are. It alone includes libpq (13 or newer).
//
// The socket is duplicated when the connection is made, and `cut` shuts the duplicate down: libpq closes its own when
// it meets an error, and the number may be another's a moment later.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "core/base/sql_identifier.hpp"
#include "core/remote/remote_tier.hpp"

struct pg_conn;  // libpq's
struct pg_result;

namespace stillwarm {

// A statement by a name that is its own in every process: prepared once per connection.
struct Statement {
  std::string name;
  std::string text;
};

class Rows {
 public:
  std::size_t size() const noexcept;
  std::size_t columns() const noexcept;
  bool null(std::size_t row, std::size_t column) const;
  std::string_view at(std::size_t row, std::size_t column) const;  // text; empty for NULL
  std::optional<std::string> text(std::size_t row, std::size_t column) const;

 private:
  friend class PostgresLink;
  struct Closer {
    void operator()(pg_result* rows) const noexcept;
  };
  explicit Rows(pg_result* rows) noexcept : rows_(rows) {}
  void expect(std::size_t row, std::size_t column) const;
  std::unique_ptr<pg_result, Closer> rows_;
};

using Parameters = std::vector<std::optional<std::string>>;

class PostgresLink {
 public:
  // Connects; blocks as long as `connect_timeout` in the connection string says. Throws TierFailure.
  PostgresLink(const std::string& connection_string, bool prepares);
  PostgresLink(const PostgresLink&) = delete;
  PostgresLink& operator=(const PostgresLink&) = delete;
  ~PostgresLink();

  // Throws TierFailure. A statement outside of a transaction is a transaction of its own.
  Rows run(const Statement& statement, const Parameters& parameters);

  // Any text, not prepared.
  Rows run(const std::string& text, const Parameters& parameters = {});

  bool usable() const noexcept;
  int server_version() const noexcept;  // 150004

  // Notifications that came with earlier traffic or are on their way; how many. Throws TierFailure.
  int notifications(const std::string& channel);
  int descriptor() const noexcept;

  // The life of the server that this connection belongs to, as the tier names it; empty: not known.
  std::string life;

  void cut() noexcept;
  // In the child of a fork: closes descriptors, sends nothing; the rest is leaked on purpose.
  void forget() noexcept;

 private:
  struct Closer {
    void operator()(pg_conn* link) const noexcept;
  };
  std::unique_ptr<pg_conn, Closer> link_;
  std::unordered_set<std::string> prepared_;
  const bool prepares_;
  bool listens_ = false;
  int duplicate_ = -1;
};

// What libpq has against a connection string, without connecting; empty: nothing.
std::string check_connection_string(const std::string& text);

// An array literal of texts: {"a","b",NULL}.
std::string array_of(std::span<const std::optional<std::string>> items);
std::string array_of(std::span<const std::string> items);

// bytea as text: \x0aff.
std::string hex_of(std::string_view bytes);
std::string bytes_of(std::string_view hex);

}  // namespace stillwarm
