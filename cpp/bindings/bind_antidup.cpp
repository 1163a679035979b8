// Upserts for Python: the statement of a plan, and what its reply says.
//
// Thread rule: with the GIL; pure functions.
// Refuses to know: tables, values, and how a statement is sent (remote_request). Lives without a remote tier.
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/bind.hpp"
#include "core/antidup/upsert.hpp"

namespace stillwarm {
namespace {

namespace pb = pybind11;

UpsertPlan plan_of(std::string table, const std::vector<std::tuple<std::string, std::string, std::string>>& columns,
                   std::vector<std::string> unique, std::vector<std::string> update, std::vector<std::string> returning,
                   bool nulls_equal, bool many, std::string marks) {
  UpsertPlan plan{std::move(table), {},   std::move(unique), std::move(update), std::move(returning),
                  nulls_equal,      many, std::move(marks)};
  for (const auto& [name, type, loose] : columns) plan.columns.push_back({name, type, loose});
  return plan;
}

template <class T>
const T& expected(const std::optional<T>& reply) {
  if (!reply) throw pb::value_error("the server's answer is not what was asked for");
  return *reply;
}

pb::object text_of(UpsertOutcome outcome) {
  constexpr const char* kTexts[] = {"unchanged", "inserted", "updated"};
  return pb::str(kTexts[static_cast<std::size_t>(outcome)]);
}

}  // namespace

void bind_antidup(pb::module_& m) {
  pb::class_<UpsertPlan>(m, "UpsertPlan")
      .def(pb::init(&plan_of), pb::kw_only(), pb::arg("table"), pb::arg("columns"), pb::arg("unique"),
           pb::arg("update"), pb::arg("returning"), pb::arg("nulls_equal"), pb::arg("many"), pb::arg("marks"))
      .def_property_readonly("text", &upsert_text)
      .def_property_readonly("reread_text", &reread_text);
  m.def(
      "read_upsert",
      [](const std::vector<UpsertRow>& rows, std::size_t given) {
        const auto reply = read_upsert(rows, given);
        const UpsertReply& r = expected(reply);
        pb::list list;
        for (std::size_t i = 0; i < given; ++i) list.append(pb::make_tuple(text_of(r.outcomes[i]), r.returned[i]));
        return pb::make_tuple(list, r.whole, r.twice);
      },
      pb::arg("rows"), pb::arg("given"), pb::pos_only());
  m.def(
      "read_reread",
      [](const std::vector<UpsertRow>& rows, std::size_t given) {
        const auto found = read_reread(rows, given);
        pb::list list;
        for (const RereadRow& row : expected(found)) list.append(pb::make_tuple(row.there, row.as_given, row.returned));
        return list;
      },
      pb::arg("rows"), pb::arg("given"), pb::pos_only());
}

}  // namespace stillwarm
