// The texts of the statements that are not rare: look-up, store, invalidation, poll, lease, hit counts.
//
// Thread rule: pure functions; the result is immutable.
// Refuses to know: connections, and what is in a payload. Identifiers come checked (see _tables.py) and are quoted
// here; everything else is a parameter.
//
// The fence (I7). A look-up returns `pg_current_snapshot()`, and what is loaded after it keeps that snapshot as `born`.
// An invalidation is a row with the number of its transaction. It concerns an entry if its transaction is not visible
// in `born`: then it ended after the load began, or had not ended by then, which counts as after. An entry's own
// transaction is left out (`xid <> version`), since a `set` writes value and message in one. Rows below `born`'s xmin
// are all visible, so the index is entered there and stays short however many old rows wait for the purge.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/remote/postgres_link.hpp"

namespace stillwarm {

// A type's own table, whose columns are plain.
struct OwnTable {
  std::string type;
  std::string name;                                          // as it stands in SQL: "product_scoring_cache", quoted
  std::string key_column;                                    // unquoted
  std::vector<std::pair<std::string, std::string>> columns;  // name, SQL type
  bool has_payload = false;
};

// The regular expression of PostgreSQL that matches what a glob (Python's fnmatch) matches.
std::string regular_expression_of(std::string_view glob);

class PostgresSql {
 public:
  // `round` tells statements apart that were made before and after a table came in.
  PostgresSql(const std::string& schema, std::vector<OwnTable> tables, unsigned round);

  const OwnTable* table(std::uint32_t slot) const noexcept { return slot == 0 ? nullptr : &tables_[slot - 1]; }
  std::size_t slots() const noexcept { return tables_.size() + 1; }

  // (n, seen, there, dead, payload, fresh_ms, kept_ms, version, tags, column...) of $1 namespace, $2 key[], $3 type[].
  const Statement& look_up(std::uint32_t slot) const { return look_up_[slot]; }
  // A fresh entry of the shared table that no mark concerns, hard or soft: what a hit needs. The first looks for marks
  // of the key and gives up if any other is younger than the entry; the second looks for all its names. No row says
  // nothing: then the next is asked, and the whole look-up at last. (payload, fresh_until and the server's clock in s
  // since 1970, tags) of $1 namespace, $2 key, $3 type.
  Statement look_up_one;
  Statement look_up_one_named;
  // (key, type, version) of what was written. $1 namespace, $2 key[], $3 type[], $4 payload[], $5 tags[], $6 born[], $7
  // fresh_ms[], $8 keep_ms[], $9 origin, $10 expected version, then one array per column.
  const Statement& store(std::uint32_t slot, Store::Mode mode) const {
    return store_[slot * 4 + static_cast<std::size_t>(mode)];
  }

  // How many keys a glob matched. $1 namespace, $2 glob, $3 soft, $4 origin, $5 the glob as a regular expression.
  Statement invalidate_pattern;
  // (key) that was there. $1 namespace, $2 name[], $3 soft[], $4 origin, $5 key[] to delete.
  Statement invalidate;
  // (seen, whether rows were purged that might concern us, outcomes, name, soft). $1 namespace, $2 seen, $3 origin, $4
  // xid[]
  Statement poll;
  // (seen, name) of the server's life, if it has one.
  Statement life;
  // Gives it one. $1 its beginning.
  Statement name_life;
  // A row if it was taken. $1 namespace, $2 key, $3 owner, $4 ms.
  Statement take_lease;
  Statement give_back_lease;
  // $1 namespace, $2 owner[], $3 ms.
  Statement renew_leases;
  // The number of the batch that was written last, if it is this one. $1 namespace, $2 process, $3 batch, $4 key[],
  // $5 hits[], $6 type[]
  Statement flush;

  static constexpr std::size_t kLookUpColumns = 9;
  static constexpr std::size_t kStoreParameters = 10;
  static constexpr std::size_t kMostPolled = 10'000;

 private:
  std::string look_up_text(const std::string& s, const OwnTable* table) const;
  std::string store_text(const std::string& s, const OwnTable* table, Store::Mode mode) const;

  std::vector<OwnTable> tables_;
  std::vector<Statement> look_up_;
  std::vector<Statement> store_;
};

}  // namespace stillwarm
