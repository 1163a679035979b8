#include "core/remote/postgres_sql.hpp"

namespace stillwarm {

namespace {

// Whether all marks that concern more than a key are visible in that snapshot: asked once per statement, by the newest.
std::string only_keys(const std::string& s, const std::string& snapshot) {
  return "coalesce((SELECT i.xid FROM " + s +
         ".invalidations i WHERE i.namespace = $1 AND NOT starts_with(i.name, 'key:') ORDER BY i.xid DESC LIMIT 1), "
         "'0') < "
         "pg_snapshot_xmin(" +
         snapshot + ")";
}

// Names of what may concern the row `r` (type, key, tags).
std::string names_of(const std::string& s, const std::string& r, const std::string& key, const std::string& type) {
  const std::string base = "ARRAY['all', 'fence', 'type:' || " + type + ", 'key:' || " + key + "]";
  return "CASE WHEN " + only_keys(s, r + ".born") + " THEN ARRAY['key:' || " + key + "] WHEN " + r +
         ".tags IS NULL THEN " + base + " ELSE " + base + " || ARRAY(SELECT 'tag:' || g FROM unnest(" + r +
         ".tags) AS g) END";
}

// Marks that concern what was born then.
std::string since(const std::string& born) {
  return "i.xid >= pg_snapshot_xmin(" + born + ") AND NOT pg_visible_in_snapshot(i.xid, " + born + ")";
}

// Of these, what makes the stored row `e` invalid. Its own transaction does not; a fence does only if the row was
// written beside it: what deleted by pattern or condition saw all others, and a load that began before it was to be
// refused.
std::string against_row() {
  return since("e.born") +
         " AND i.xid <> e.version AND (i.name <> 'fence' OR NOT pg_visible_in_snapshot(e.version, i.seen))";
}

// Whether one of the names has a mark of that kind. One probe of the index per name, whatever the planner thinks of a
// table that it knows nothing of yet: as one condition (`i.name = ANY (names)`) it may walk over all marks since
// `born`, which took 200 ms with 20,000 of them. A scalar subquery is neither joined nor hashed, and only one index
// fits.
std::string marked(const std::string& s, const std::string& names, const std::string& condition) {
  return "(SELECT bool_or((SELECT true FROM " + s + ".invalidations i WHERE i.namespace = $1 AND i.name = n.name AND " +
         condition + " LIMIT 1)) FROM unnest(" + names + ") AS n(name))";
}

std::string literal(const std::string& text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'') out += '\'';
    out += c;
  }
  return out += "'";
}

// Rows of a type's own table are locked after those in entries, as a store does it: every statement that locks several
// rows goes entries first, then own tables, each in the order of keys, and so no two wait for each other. Parts of a
// statement that nothing reads run last one first, hence this.
const std::string kThen = " AND (SELECT count(*) FROM locked) >= 0";

const std::string kMsLeft = " - date_part('epoch', clock_timestamp())) * 1000";

std::string after(const std::string& ms) {
  return "CASE WHEN " + ms + " = 'Infinity' THEN 'infinity'::timestamptz ELSE clock_timestamp() + " + ms +
         " * interval '1 ms' END";
}

}  // namespace

std::string regular_expression_of(std::string_view glob) {
  const auto is_word = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           static_cast<unsigned char>(c) >= 0x80;
  };
  std::string out = "^";
  for (std::size_t i = 0; i < glob.size(); ++i) {
    const char c = glob[i];
    if (c == '*') {
      if (!out.ends_with(".*")) out += ".*";
    } else if (c == '?') {
      out += '.';
    } else if (c == '[') {
      std::size_t end = i + 1;  // a bracket at the beginning is a member
      if (end < glob.size() && glob[end] == '!') ++end;
      if (end < glob.size() && glob[end] == ']') ++end;
      while (end < glob.size() && glob[end] != ']') ++end;
      if (end >= glob.size()) {
        out += "\\[";
        continue;
      }
      out += '[';
      for (++i; i < end; ++i) {
        if (glob[i] == '!' && out.back() == '[') {
          out += '^';
        } else {
          if (!is_word(glob[i]) && glob[i] != '-') out += '\\';
          out += glob[i];
        }
      }
      out += ']';
    } else {
      if (!is_word(c)) out += '\\';
      out += c;
    }
  }
  return out + "$";
}

std::string PostgresSql::look_up_text(const std::string& s, const OwnTable* table) const {
  std::string text =
      "SELECT k.n, pg_current_snapshot()::text, {there}, m.dead, {payload}, (date_part('epoch', least({fresh}, "
      "m.stale_at))" +
      kMsLeft + ", (date_part('epoch', {kept})" + kMsLeft + ", e.version::text, e.tags{columns}" +
      " FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS k(key, type, n)"
      // LIMIT: what is joined laterally and has one is looked up row by row. Otherwise a planner that knows nothing of
      // the table yet may look up the marks of all its rows first, and join then.
      " LEFT JOIN LATERAL (SELECT * FROM " +
      s +
      ".entries e WHERE e.namespace = $1 AND e.key = k.key COLLATE \"C\" AND e.type = k.type COLLATE \"C\" LIMIT 1) e "
      "ON true{own}" +
      // Name by name, as in `marked`.
      " LEFT JOIN LATERAL (SELECT bool_or(o.dead) AS dead, min(o.stale_at) AS stale_at FROM unnest({names}) AS "
      "n(name), "
      "LATERAL (SELECT bool_or(NOT i.soft) AS dead, min(i.at) FILTER (WHERE i.soft) AS stale_at FROM " +
      s + ".invalidations i WHERE i.namespace = $1 AND i.name = n.name AND {since}) o) m ON {there}";
  const auto put = [&text](const std::string& place, const std::string& what) {
    for (auto at = text.find(place); at != std::string::npos; at = text.find(place, at + what.size())) {
      text.replace(at, place.size(), what);
    }
  };
  if (table == nullptr) {
    put("{payload}", "e.payload");
    put("{fresh}", "e.fresh_until");
    put("{kept}", "e.expires_at");
    put("{columns}", "");
    put("{own}", "");
    put("{names}", names_of(s, "e", "e.key", "e.type"));
    put("{since}", against_row());
    put("{there}", "e.key IS NOT NULL");
    return text;
  }
  // A row that somebody else wrote has no born: marks younger than the row concern it.
  const std::string expires = "(t.expires_at AT TIME ZONE 'UTC')";
  std::string columns;
  for (const auto& [name, type] : table->columns) columns += ", t." + quoted_identifier(name) + "::text";
  put("{columns}", columns);
  put("{payload}", table->has_payload ? "t.payload" : "NULL::bytea");
  put("{fresh}", expires);
  put("{kept}", "greatest(" + expires + ", e.expires_at)");
  put("{own}", " LEFT JOIN LATERAL (SELECT * FROM " + table->name + " t WHERE t." +
                   quoted_identifier(table->key_column) + " = k.key LIMIT 1) t ON true");
  put("{names}", names_of(s, "e", "k.key", literal(table->type)));
  put("{since}",
      "CASE WHEN e.key IS NULL THEN i.name <> 'fence' AND i.at > (coalesce(t.created_at, '-infinity') AT TIME ZONE "
      "'UTC') ELSE " +
          against_row() + " END");
  put("{there}", "t." + quoted_identifier(table->key_column) + " IS NOT NULL");
  return text;
}

std::string PostgresSql::store_text(const std::string& s, const OwnTable* table, Store::Mode mode) const {
  const bool load = mode == Store::Mode::kLoad;
  const bool of_before = load || mode == Store::Mode::kSwap;  // made from what was read at `born`
  std::string arrays = "$2::text[], $3::text[], $4::bytea[], $5::text[], $6::text[], $7::float8[], $8::float8[]";
  std::string names = "key, type, payload, tags, born, fresh, keep";
  std::string own_names, own_values, own_sets;
  if (table != nullptr) {
    std::size_t parameter = kStoreParameters;
    for (const auto& [name, type] : table->columns) {
      const std::string place = "c" + std::to_string(++parameter);
      arrays += ", $" + std::to_string(parameter) + "::text[]";
      names += ", " + place;
      own_names += ", " + quoted_identifier(name);
      own_values += ", a." + place + "::" + type;
      own_sets += ", " + quoted_identifier(name) + " = EXCLUDED." + quoted_identifier(name);
    }
    if (table->has_payload) {
      own_names += ", payload";
      own_values += ", a.payload";
      own_sets += ", payload = EXCLUDED.payload";
    }
  }
  // A moment beyond this server's: another one is there now, with other data, and no mark of it would ever concern what
  // was born then.
  const std::string here = "pg_snapshot_xmax(g.born::pg_snapshot) <= pg_snapshot_xmax(pg_current_snapshot())";
  const std::string seen = load ? "coalesce(g.born::pg_snapshot, pg_current_snapshot())"
                                : "CASE WHEN " + here + " THEN g.born::pg_snapshot ELSE pg_current_snapshot() END";
  std::string text = "WITH given AS MATERIALIZED (SELECT g.*, g.tags::text[] AS tag_list, " + seen + " AS seen, " +
                     after("g.fresh") + " AS fresh_until, " + after("g.keep") + " AS expires_at FROM unnest(" + arrays +
                     ") AS g(" + names + ")), ";
  // Only what was read before can have been overtaken; a set is of now.
  const std::string list =
      "CASE WHEN " + only_keys(s, "g.seen") +
      " THEN ARRAY['key:' || g.key] ELSE CASE WHEN g.tag_list IS NULL THEN '{}'::text[] ELSE ARRAY(SELECT 'tag:' || t "
      "FROM "
      "unnest(g.tag_list) AS t) END || ARRAY['all', 'fence', 'type:' || g.type, 'key:' || g.key] END";
  text += "allowed AS MATERIALIZED (SELECT g.* FROM given g WHERE ";
  text += of_before ? "(g.born IS NULL OR " + here + ") AND " + marked(s, list, "NOT i.soft AND " + since("g.seen")) +
                          " IS NOT TRUE AND NOT EXISTS (SELECT FROM " + s +
                          ".floors f WHERE f.namespace = $1 AND f.xid > pg_snapshot_xmin(g.seen))"
                    : "true";
  text +=
      "), written AS (INSERT INTO " + s +
      ".entries AS e (namespace, key, type, payload, tags, born, version, created_at, fresh_until, expires_at) SELECT "
      "$1, a.key, a.type, " +
      (table == nullptr ? "a.payload" : "NULL::bytea") +
      ", a.tag_list, a.seen, pg_current_xact_id(), now(), a.fresh_until, a.expires_at FROM allowed a ORDER BY a.key "
      "COLLATE \"C\", a.type COLLATE \"C\" ON CONFLICT (namespace, key, type) DO UPDATE SET payload = "
      "EXCLUDED.payload, tags = "
      "EXCLUDED.tags, born = EXCLUDED.born, version = EXCLUDED.version, created_at = EXCLUDED.created_at, fresh_until "
      "= "
      "EXCLUDED.fresh_until, expires_at = EXCLUDED.expires_at WHERE ";
  switch (mode) {
    case Store::Mode::kLoad:
    case Store::Mode::kSet:
      text += "pg_visible_in_snapshot(e.version, EXCLUDED.born)";
      break;
    case Store::Mode::kAdd:
      text += "e.fresh_until <= clock_timestamp() OR " + marked(s, names_of(s, "e", "e.key", "e.type"), against_row());
      break;
    case Store::Mode::kSwap:
      text += "e.version = $10::xid8";
      break;
  }
  text += " RETURNING e.key, e.type, e.version)";
  if (!load) {
    text += ", told AS (INSERT INTO " + s +
            ".invalidations (namespace, name, origin) SELECT $1, 'key:' || w.key, $9 FROM written w)";
  }
  if (table != nullptr) {
    const std::string key = quoted_identifier(table->key_column);
    text += ", own AS (INSERT INTO " + table->name + " (" + key + own_names + ", created_at, expires_at) SELECT a.key" +
            own_values +
            ", now() AT TIME ZONE 'UTC', a.fresh_until AT TIME ZONE 'UTC' FROM allowed a JOIN written w ON "
            "w.key = a.key COLLATE \"C\" ORDER BY a.key ON CONFLICT (" +
            key +
            ") DO UPDATE SET created_at = EXCLUDED.created_at, "
            "expires_at = EXCLUDED.expires_at" +
            own_sets + ")";
  }
  // Every parameter has to be mentioned.
  text +=
      " SELECT w.key, w.type, w.version::text, pg_current_snapshot()::text FROM written w WHERE $9::text IS NULL OR "
      "$10::text IS NULL OR true";
  return text;
}

PostgresSql::PostgresSql(const std::string& schema, std::vector<OwnTable> tables, unsigned round)
    : tables_(std::move(tables)) {
  const std::string s = quoted_identifier(schema);
  const std::string mark = "_" + std::to_string(round);
  for (std::uint32_t slot = 0; slot < slots(); ++slot) {
    const std::string at = std::to_string(slot) + mark;
    look_up_.push_back({"sw_look_up_" + at, look_up_text(s, table(slot))});
    for (const auto mode : {Store::Mode::kLoad, Store::Mode::kSet, Store::Mode::kAdd, Store::Mode::kSwap}) {
      store_.push_back({std::string("sw_") + name_of(mode) + "_" + at, store_text(s, table(slot), mode)});
    }
  }
  const std::string one =
      "SELECT e.payload, date_part('epoch', e.fresh_until), date_part('epoch', now()), e.tags FROM " + s +
      ".entries e WHERE e.namespace = $1 AND e.key = $2 AND e.type = $3 AND e.fresh_until > now() AND ";
  look_up_one = {"sw_look_up_one", one + only_keys(s, "e.born") + " AND (SELECT true FROM " + s +
                                       ".invalidations i WHERE i.namespace = $1 AND i.name = 'key:' || e.key AND " +
                                       against_row() + " LIMIT 1) IS NULL"};
  look_up_one_named = {"sw_look_up_one_named",
                       one + marked(s, names_of(s, "e", "e.key", "e.type"), against_row()) + " IS NOT TRUE"};
  // A row stays where it is, without its value: its next version then finds room beside it and touches no index. Of a
  // type with a table of its own it goes, since a row that somebody writes there by hand must not be taken for an old
  // one.
  std::string own_types = "'{}'";
  if (!tables_.empty()) {
    own_types = "ARRAY[";
    for (std::size_t i = 0; i < tables_.size(); ++i) own_types += (i > 0 ? ", " : "") + literal(tables_[i].type);
    own_types += "]";
  }
  std::string gone =
      "WITH told AS (INSERT INTO " + s +
      ".invalidations (namespace, name, soft, origin) SELECT $1, u.name, u.soft, $4 FROM unnest($2::text[], "
      "$3::boolean[]) AS u(name, soft)), locked AS MATERIALIZED (SELECT l.*, l.type = ANY (" +
      own_types +
      "::text[]) AS own FROM (SELECT DISTINCT u.key COLLATE \"C\" AS key FROM unnest($5::text[]) AS u(key) "
      "ORDER BY 1) AS u, LATERAL (SELECT e.key, e.type, e.expires_at FROM " +
      s +
      ".entries e WHERE e.namespace = $1 AND e.key = u.key ORDER BY e.key, e.type FOR UPDATE) AS l), gone AS (DELETE "
      "FROM " +
      s +
      ".entries e USING locked l WHERE l.own AND e.namespace = $1 AND e.key = l.key AND e.type = l.type), emptied AS "
      "(UPDATE " +
      s +
      ".entries e SET payload = NULL, fresh_until = '-infinity', expires_at = least(e.expires_at, clock_timestamp()) "
      "FROM "
      "locked l WHERE NOT l.own AND e.namespace = $1 AND e.key = l.key AND e.type = l.type)";
  std::string keys = " SELECT key::text FROM locked WHERE expires_at > clock_timestamp()";
  std::string counted =
      "WITH given AS MATERIALIZED (SELECT u.key COLLATE \"C\" AS key, u.type COLLATE \"C\" AS type, sum(u.hits) AS "
      "hits FROM "
      "unnest($4::text[], $5::bigint[], $6::text[]) AS u(key, hits, type) GROUP BY 1, 2), mine AS (INSERT INTO " +
      s +
      ".flushes AS f (process, batch) VALUES ($2, "
      "$3::bigint) ON CONFLICT (process) DO UPDATE SET batch = EXCLUDED.batch, at = now() WHERE f.batch < "
      "EXCLUDED.batch "
      // The hits come along with the locked rows: a join of two lists, neither of which has an index, is quadratic. So
      // is one with a table by another collation than its index has.
      "RETURNING f.batch), locked AS MATERIALIZED (SELECT l.key, l.type, g.hits FROM (SELECT * FROM given ORDER BY "
      "key, type) AS g, "
      "LATERAL (SELECT e.key, e.type FROM " +
      s +
      ".entries e WHERE e.namespace = $1 AND e.key = g.key AND e.type = g.type FOR UPDATE) AS l), "
      "counted AS (UPDATE " +
      s +
      ".entries e SET hit_count = e.hit_count + l.hits FROM locked l WHERE e.namespace = $1 AND e.key = l.key AND "
      "e.type = l.type AND EXISTS (SELECT FROM mine))";
  for (std::size_t i = 0; i < tables_.size(); ++i) {
    const std::string key = quoted_identifier(tables_[i].key_column), n = std::to_string(i);
    gone += ", locked" + n + " AS MATERIALIZED (SELECT " + key + " AS key FROM " + tables_[i].name + " WHERE " + key +
            " = ANY ($5::text[])" + kThen + " ORDER BY 1 FOR UPDATE), gone" + n + " AS (DELETE FROM " +
            tables_[i].name + " t USING locked" + n + " l WHERE t." + key + " = l.key RETURNING t." + key +
            " AS key, t.expires_at)";
    keys += " UNION SELECT key::text FROM gone" + n + " WHERE expires_at AT TIME ZONE 'UTC' > clock_timestamp()";
    counted += ", locked" + n + " AS MATERIALIZED (SELECT t." + key + " AS key, g.hits FROM given g JOIN " +
               tables_[i].name + " t ON t." + key +
               " = g.key COLLATE \"default\" WHERE g.type = " + literal(tables_[i].type) + kThen +
               " ORDER BY 1 FOR UPDATE OF t), counted" + n + " AS (UPDATE " + tables_[i].name +
               " t SET hit_count = coalesce(t.hit_count, 0) + l.hits FROM locked" + n + " l WHERE t." + key +
               " = l.key AND EXISTS (SELECT FROM mine))";
  }
  std::string matched =
      "WITH told AS (INSERT INTO " + s +
      ".invalidations (namespace, name, soft, origin, seen) VALUES ($1, 'pattern:' || $2::text, $3::boolean, $4, "
      "NULL), ($1, 'fence', false, $4, pg_current_snapshot())), locked AS MATERIALIZED (SELECT key, type, expires_at "
      "FROM " +
      s + ".entries WHERE namespace = $1 AND key ~ $5 ORDER BY key, type FOR UPDATE), gone AS (DELETE FROM " + s +
      ".entries e USING locked l WHERE e.namespace = $1 AND e.key = l.key AND e.type = l.type AND NOT "
      "$3::boolean), staled AS (UPDATE " +
      s +
      ".entries e SET fresh_until = least(e.fresh_until, clock_timestamp()) FROM locked l WHERE e.namespace = $1 "
      "AND e.key = l.key AND e.type = l.type AND $3::boolean)";
  std::string counts = " SELECT count(*) FROM (SELECT key FROM locked WHERE expires_at > clock_timestamp()";
  for (std::size_t i = 0; i < tables_.size(); ++i) {
    const std::string key = quoted_identifier(tables_[i].key_column), n = std::to_string(i), &name = tables_[i].name;
    matched += ", locked" + n + " AS MATERIALIZED (SELECT " + key + " AS key FROM " + name + " WHERE " + key + " ~ $5" +
               kThen + " ORDER BY 1 FOR UPDATE), gone" + n + " AS (DELETE FROM " + name + " t USING locked" + n +
               " l WHERE t." + key + " = l.key AND NOT $3::boolean), staled" + n + " AS (UPDATE " + name +
               " t SET expires_at = least(t.expires_at, clock_timestamp() AT TIME ZONE 'UTC') FROM locked" + n +
               " l WHERE t." + key + " = l.key AND $3::boolean)";
    counts += " UNION SELECT key FROM locked" + n;
  }
  invalidate_pattern = {"sw_pattern" + mark, matched + counts + ") AS k"};
  invalidate = {"sw_invalidate" + mark, gone + keys};
  flush = {"sw_flush" + mark, counted + " SELECT batch FROM mine"};
  poll = {
      "sw_poll",
      "SELECT pg_current_snapshot()::text, coalesce(f.xid > pg_snapshot_xmin($2::pg_snapshot), false) OR "
      "pg_snapshot_xmax($2::pg_snapshot) > pg_snapshot_xmax(pg_current_snapshot()), (SELECT "
      "array_agg(coalesce(pg_xact_status(a.x::xid8), '') ORDER BY a.n) FROM unnest($4::text[]) WITH ORDINALITY AS a(x, "
      "n)), i.name, i.soft, (SELECT owner FROM " +
          s + ".leases WHERE namespace = '' AND key = '') FROM (VALUES (1)) AS one LEFT JOIN " + s +
          ".floors f ON f.namespace = $1 LEFT JOIN " + s +
          ".invalidations i ON i.namespace = $1 AND i.name <> '' AND " + since("$2::pg_snapshot") +
          " AND i.origin IS DISTINCT FROM $3 LIMIT " + std::to_string(kMostPolled + 1)};
  // The table of leases is empty after a crash of the server and on a standby that was promoted. There and then numbers
  // of transactions are given away a second time, so that a snapshot from before means nothing: this row tells.
  life = {"sw_life",
          "SELECT pg_current_snapshot()::text, owner FROM " + s + ".leases WHERE namespace = '' AND key = ''"};
  name_life = {"sw_name_life",
               "INSERT INTO " + s +
                   ".leases (namespace, key, owner, expires_at) VALUES ('', '', $1 || '@' || pg_current_xact_id(), "
                   "'infinity') ON CONFLICT DO NOTHING"};
  take_lease = {
      "sw_take_lease",
      "INSERT INTO " + s +
          ".leases AS l (namespace, key, owner, expires_at) VALUES ($1, $2, $3, clock_timestamp() + "
          "$4::float8 * interval '1 ms') ON CONFLICT (namespace, key) DO UPDATE SET owner = EXCLUDED.owner, expires_at "
          "= "
          "EXCLUDED.expires_at WHERE l.expires_at <= clock_timestamp() OR l.owner = EXCLUDED.owner RETURNING 1"};
  give_back_lease = {"sw_give_back_lease",
                     "DELETE FROM " + s + ".leases WHERE namespace = $1 AND key = $2 AND owner = $3"};
  renew_leases = {"sw_renew_leases", "UPDATE " + s +
                                         ".leases SET expires_at = clock_timestamp() + $3::float8 * interval '1 ms' "
                                         "WHERE namespace = $1 AND owner = ANY ($2::text[])"};
}

}  // namespace stillwarm
