// The PostgreSQL tier for Python.
//
// Thread rule: with the GIL.
// Refuses to know: what it has in common with other tiers (bind_remote), SQL (core/remote/postgres_sql).
#include <pybind11/stl.h>

#include "bindings/bind.hpp"
#include "bindings/remote_tier.hpp"
#include "core/remote/postgres_ear.hpp"

namespace stillwarm {
namespace {

namespace pb = pybind11;

struct OfPostgres : RemoteTier {
  OfPostgres(std::shared_ptr<Inbox> i, std::shared_ptr<PostgresTier> t, const Settings& s)
      : RemoteTier(std::move(i), t, std::make_shared<PostgresEars>(t), s), tier(std::move(t)) {}
  const std::shared_ptr<PostgresTier> tier;
};

}  // namespace

void bind_postgres(pb::module_& m) {
  m.def("check_connection_string", check_connection_string);
  pb::class_<OfPostgres, RemoteTier>(m, "PostgresTier")
      .def(pb::init([](std::string connection_string, std::string namespace_name, std::string schema,
                       std::string process, std::vector<std::string> setup, bool pooler, unsigned connections,
                       Nanos timeout, std::size_t most_waiting, Nanos max_lag, Nanos lease_age) {
             auto inbox = std::make_shared<Inbox>(max_lag);
             auto tier = std::make_shared<PostgresTier>(
                 PostgresTier::Options{std::move(connection_string), std::move(namespace_name), std::move(schema),
                                       std::move(process), std::move(setup), pooler, timeout},
                 inbox);
             return std::make_unique<OfPostgres>(
                 std::move(inbox), std::move(tier),
                 RemoteTier::Settings{connections, timeout, most_waiting, max_lag, lease_age});
           }),
           pb::arg("connection_string"), pb::arg("namespace"), pb::arg("schema"), pb::arg("process"), pb::arg("setup"),
           pb::arg("pooler"), pb::arg("connections"), pb::arg("timeout"), pb::arg("most_waiting"), pb::arg("max_lag"),
           pb::arg("lease_age"))
      .def("add_table",
           [](OfPostgres& t, std::string type, std::string name, std::string key_column,
              std::vector<std::pair<std::string, std::string>> columns, bool has_payload, std::string setup) {
             return t.tier->add_table(
                 {std::move(type), std::move(name), std::move(key_column), std::move(columns), has_payload},
                 std::move(setup));
           });
}

}  // namespace stillwarm
