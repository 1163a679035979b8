// One row per natural key: the statement that writes many rows at once, and how its reply is read.
//
// Thread rule: pure functions.
// Refuses to know: connections, values, and where the names and types come from: they are checked by then, and are
// quoted here but for the tables, which come as they stand in SQL.
//
// One INSERT ... ON CONFLICT DO UPDATE, in the order of the keys by the names of their columns: two upserts lock the
// same rows in the same order, whichever order their callers gave. What is equal already is not written.
//
// Which of the three it was. A row that came back was written; one that did not was equal, in the version that this
// statement had locked. Inserted and updated are told apart by what the server has to do and not by what it leaves in
// the row: it asks the condition of DO UPDATE for a row that is there, right before RETURNING of the same row, and
// never for one that it inserts. So the condition leaves the key in a setting of the transaction, and RETURNING
// compares. Of a row that is equal it leaves the count in another: fewer than those that did not come back means that a
// trigger kept one out, which must not pass for equal. Others: `xmax = 0` is undocumented, and an error in a partition
// that looks like its parent and in a view; a CTE that looked before knows the snapshot alone, by which of many that
// insert one key at the same time each would be the one; DO NOTHING needs a second statement for those that lost.
//
// Equal is what has the same bytes (`*<>`): a value that is only equal (1.0 and 1.00, "a" and "A" of citext) is
// written, and types without `=` (json, point) need no rule of their own.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace stillwarm {

struct UpsertColumn {
  std::string name;
  std::string type;   // what a text is cast to; without a size where a cast would cut and not refuse
  std::string loose;  // likewise without any size, for what is stored: the column may have a wider one by now
};

struct UpsertPlan {
  std::string table;
  std::vector<UpsertColumn> columns;  // those given, the unique ones among them
  std::vector<std::string> unique;
  std::vector<std::string> update;  // what changes in a row that is there; none: it stays as it is
  std::vector<std::string> returning;
  bool nulls_equal = false;  // NULLS NOT DISTINCT: a NULL is a key like any other
  bool many = false;         // more than one row is given: two might have one key
  std::string marks;         // the table of invalidations; empty: nothing is invalidated
};

// $1... one text[] per column; then, with marks, namespace, origin, names text[], soft boolean[]. Rows of (number of
// the given row, how many given rows are there unwritten, inserted or NULL where nothing was written, returning...).
// The marks are written if, and only if, a row was. Where two given rows have one key, -1 are, and nothing was written;
// where only the collation of the index tells that they do, it is an error of the server (21000).
std::string upsert_text(const UpsertPlan& plan);

// What is there under those keys now. $1... one text[] per column. Rows of (number, whether it is as given in the key
// and in `update`, returning...); none for a key that is not there.
std::string reread_text(const UpsertPlan& plan);

enum class UpsertOutcome : std::uint8_t { kUnchanged, kInserted, kUpdated };

using UpsertRow = std::vector<std::optional<std::string>>;

struct UpsertReply {
  std::vector<UpsertOutcome> outcomes;  // one per given row
  std::vector<UpsertRow> returned;      // empty for a row that was not written
  // False: a trigger wrote some row under another key than it was given, or kept one out: of those that seem unchanged
  // nobody knows. (Where nothing is updated, one that was kept out seems unchanged.)
  bool whole = true;
  bool twice = false;  // two given rows have one key; nothing was done
};

// The reply to `upsert_text` for so many rows; nothing if it is no such reply.
std::optional<UpsertReply> read_upsert(const std::vector<UpsertRow>& rows, std::size_t given);

struct RereadRow {
  bool there = false;
  bool as_given = false;
  UpsertRow returned;
};

// Likewise of `reread_text`.
std::optional<std::vector<RereadRow>> read_reread(const std::vector<UpsertRow>& rows, std::size_t given);

}  // namespace stillwarm
