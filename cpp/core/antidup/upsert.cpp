#include "core/antidup/upsert.hpp"

#include <algorithm>
#include <charconv>
#include <string_view>

#include "core/base/sql_identifier.hpp"

namespace stillwarm {

namespace {

constexpr std::string_view kSetting = "'stillwarm.upsert_met'";
constexpr std::string_view kEqual = "'stillwarm.upsert_equal'";

// How many rows were equal, so far.
std::string equal_rows() {
  return "coalesce(nullif(current_setting(" + std::string(kEqual) + ", true), ''), '0')::bigint";
}

template <class Items, class Text>
std::string joined(const Items& items, std::string_view between, const Text& text) {
  std::string out;
  for (const auto& item : items) {
    if (!out.empty()) out += between;
    out += text(item);
  }
  return out;
}

// What the column is called among the given rows.
std::string place_of(const UpsertPlan& plan, const std::string& name) {
  const auto it =
      std::find_if(plan.columns.begin(), plan.columns.end(), [&](const UpsertColumn& c) { return c.name == name; });
  return "c" + std::to_string(it - plan.columns.begin() + 1);
}

// Only keys need their size to be found again, and what is compared.
std::string given_text(const UpsertPlan& plan, bool stores) {
  std::string arrays, places, typed;
  for (std::size_t i = 1; i <= plan.columns.size(); ++i) {
    const std::string n = std::to_string(i);
    arrays += (i > 1 ? ", $" : "$") + n + "::text[]";
    places += "c" + n + ", ";
    const UpsertColumn& column = plan.columns[i - 1];
    const bool is_key = std::find(plan.unique.begin(), plan.unique.end(), column.name) != plan.unique.end();
    typed += ", u.c" + n + "::" + (stores && !is_key ? column.loose : column.type) + " AS c" + n;
  }
  return "given AS MATERIALIZED (SELECT u.n" + typed + " FROM unnest(" + arrays + ") WITH ORDINALITY AS u(" + places +
         "n))";
}

std::string same_key(const UpsertPlan& plan, const std::string& row, bool by_place) {
  return joined(plan.unique, " AND ", [&](const std::string& name) {
    const std::string place = place_of(plan, name);
    return row + "." + (by_place ? place : quoted_identifier(name)) +
           (plan.nulls_equal ? " IS NOT DISTINCT FROM g." : " = g.") + place;
  });
}

std::string row_of(const std::vector<std::string>& names, const std::string& row) {
  return "ROW(" + joined(names, ", ", [&](const std::string& name) { return row + "." + quoted_identifier(name); }) +
         ")";
}

std::string on_conflict(const UpsertPlan& plan) {
  const std::string target = " ON CONFLICT (" + joined(plan.unique, ", ", quoted_identifier) + ") DO ";
  if (plan.update.empty()) return target + "NOTHING";
  return target + "UPDATE SET " +
         joined(plan.update, ", ",
                [](const std::string& n) { return quoted_identifier(n) + " = EXCLUDED." + quoted_identifier(n); }) +
         " WHERE CASE WHEN " + row_of(plan.update, "t") + "::record *<> " + row_of(plan.update, "EXCLUDED") +
         "::record THEN set_config(" + std::string(kSetting) + ", " + row_of(plan.unique, "t") +
         "::text, true) IS NOT NULL ELSE set_config(" + std::string(kEqual) + ", (" + equal_rows() +
         " + 1)::text, true) IS NULL END";
}

// A number from 1 to `most` at the beginning of a reply's row, counted from 0.
std::optional<std::size_t> number_of(const std::optional<std::string>& text, std::size_t most) {
  std::size_t number = 0;
  if (!text) return std::nullopt;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), number);
  if (error != std::errc() || end != text->data() + text->size() || number < 1 || number > most) return std::nullopt;
  return number - 1;
}

}  // namespace

std::string upsert_text(const UpsertPlan& plan) {
  std::vector<std::string> order = plan.unique;
  std::sort(order.begin(), order.end());
  const std::string inserted = plan.update.empty()
                                   ? "true"
                                   : "current_setting(" + std::string(kSetting) + ", true) IS DISTINCT FROM " +
                                         row_of(plan.unique, "t") + "::text";
  // DO NOTHING would swallow the second of two rows with one key, and DO UPDATE would if the first is equal to what is
  // there: the reply could not tell which that was.
  const bool looks = plan.many;
  const std::string key = joined(plan.unique, ", ", [&](const std::string& n) { return "g." + place_of(plan, n); });
  const std::string sound = "(SELECT yes FROM sound)";
  std::string text =
      "WITH " + given_text(plan, true) +
      (looks ? ", sound AS MATERIALIZED (SELECT NOT EXISTS (SELECT FROM given g GROUP BY " + key +
                   " HAVING count(*) > 1) AS yes)"
             : "") +
      ", written AS (INSERT INTO " + plan.table + " AS t (" +
      joined(plan.columns, ", ", [](const UpsertColumn& c) { return quoted_identifier(c.name); }) + ") SELECT " +
      joined(plan.columns, ", ", [&](const UpsertColumn& c) { return "g." + place_of(plan, c.name); }) +
      " FROM given g" + (looks ? " WHERE " + sound : "") + " ORDER BY " +
      joined(order, ", ", [&](const std::string& name) { return "g." + place_of(plan, name); }) + on_conflict(plan) +
      " RETURNING " + inserted + " AS inserted" + joined(plan.unique, "", [&](const std::string& n) {
        return ", t." + quoted_identifier(n) + " AS " + place_of(plan, n);
      });
  for (std::size_t i = 0; i < plan.returning.size(); ++i) {
    text += ", t." + quoted_identifier(plan.returning[i]) + "::text AS r" + std::to_string(i + 1);
  }
  text += ")";
  if (!plan.marks.empty()) {
    const auto parameter = [&](std::size_t i) { return "$" + std::to_string(plan.columns.size() + i); };
    text += ", told AS (INSERT INTO " + plan.marks + " (namespace, name, soft, origin) SELECT " + parameter(1) +
            "::text, m.name, m.soft, " + parameter(2) + "::text FROM unnest(" + parameter(3) + "::text[], " +
            parameter(4) + "::boolean[]) AS m(name, soft) WHERE EXISTS (SELECT FROM written))";
  }
  // The setting is read by who has counted all that was written, and so after it.
  const std::string left =
      plan.update.empty() ? "(SELECT count(*) FROM given) - count(*)" : equal_rows() + " + 0 * count(*)";
  text += " SELECT g.n, (SELECT " + (looks ? "CASE WHEN " + sound + " THEN " + left + " ELSE -1 END" : left) +
          " FROM written), w.inserted";
  for (std::size_t i = 0; i < plan.returning.size(); ++i) text += ", w.r" + std::to_string(i + 1);
  return text + " FROM given g LEFT JOIN written w ON " + same_key(plan, "w", true);
}

std::string reread_text(const UpsertPlan& plan) {
  // By their texts: types without `=` have one too, and one text is one value, but for collations that know better.
  std::string as_given = joined(plan.update, " AND ", [&](const std::string& name) {
    return "t." + quoted_identifier(name) + R"(::text COLLATE "C" IS NOT DISTINCT FROM g.)" + place_of(plan, name) +
           R"(::text COLLATE "C")";
  });
  if (as_given.empty()) as_given = "true";
  return "WITH " + given_text(plan, false) + " SELECT g.n, " + as_given +
         joined(plan.returning, "",
                [](const std::string& name) { return ", t." + quoted_identifier(name) + "::text"; }) +
         " FROM given g JOIN " + plan.table + " t ON " + same_key(plan, "t", false);
}

std::optional<UpsertReply> read_upsert(const std::vector<UpsertRow>& rows, std::size_t given) {
  constexpr std::size_t kBefore = 3;
  UpsertReply reply;
  reply.outcomes.resize(given, UpsertOutcome::kUnchanged);
  reply.returned.resize(given);
  if (rows.size() != given) return std::nullopt;
  std::vector<bool> seen(given, false);
  std::size_t matched = 0;
  std::string left;
  for (const UpsertRow& row : rows) {
    const auto n = row.size() < kBefore ? std::nullopt : number_of(row[0], given);
    if (!n || seen[*n] || !row[1]) return std::nullopt;
    seen[*n] = true;
    left = *row[1];
    if (!row[2]) continue;
    ++matched;
    reply.outcomes[*n] = *row[2] == "t" ? UpsertOutcome::kInserted : UpsertOutcome::kUpdated;
    reply.returned[*n].assign(row.begin() + kBefore, row.end());
  }
  reply.twice = left == "-1";
  reply.whole = given == 0 || reply.twice || left == std::to_string(given - matched);
  return reply;
}

std::optional<std::vector<RereadRow>> read_reread(const std::vector<UpsertRow>& rows, std::size_t given) {
  constexpr std::size_t kBefore = 2;
  std::vector<RereadRow> found(given);
  for (const UpsertRow& row : rows) {
    const auto n = row.size() < kBefore ? std::nullopt : number_of(row[0], given);
    if (!n || found[*n].there) return std::nullopt;
    found[*n].there = true;
    found[*n].as_given = row[1] == "t";
    found[*n].returned.assign(row.begin() + kBefore, row.end());
  }
  return found;
}

}  // namespace stillwarm
