// The Redis tier for Python.
//
// Thread rule: with the GIL.
// Refuses to know: what it has in common with other tiers (bind_remote), scripts (core/remote/redis_scripts).
#include <pybind11/stl.h>

#include "bindings/bind.hpp"
#include "bindings/remote_tier.hpp"
#include "core/remote/redis_cluster_ear.hpp"
#include "core/remote/redis_ear.hpp"

namespace stillwarm {

namespace pb = pybind11;

namespace {

using Tls = std::tuple<bool, std::string, std::string, std::string>;  // as RedisTls from `verified` on

RedisTls redis_tls(const std::optional<Tls>& tls) {
  if (!tls) return {};
  return {true, std::get<0>(*tls), std::get<1>(*tls), std::get<2>(*tls), std::get<3>(*tls)};
}

}  // namespace

void bind_redis(pb::module_& m) {
#ifdef STILLWARM_REDIS_TLS
  m.attr("REDIS_TLS") = true;
#else
  m.attr("REDIS_TLS") = false;
#endif
  m.def("check_redis_tls", [](const Tls& tls) { return check_redis_tls(redis_tls(tls)); });
  struct OfRedis : RemoteTier {
    using RemoteTier::RemoteTier;
  };
  pb::class_<OfRedis, RemoteTier>(m, "RedisTier")
      .def(pb::init([](std::string host, int port, int database, std::string user, std::string password,
                       std::vector<RedisPlace> places, std::string service, bool cluster, const std::optional<Tls>& tls,
                       Nanos connect_timeout, std::string namespace_name, std::string process, unsigned connections,
                       Nanos timeout, std::size_t most_waiting, Nanos max_lag, Nanos lease_age) {
             const RemoteTier::Settings settings{connections, timeout, most_waiting, max_lag, lease_age};
             const RedisAddress address{std::move(host), port,          database, std::move(user), std::move(password),
                                        connect_timeout, redis_tls(tls)};
             if (cluster) {
               auto nodes = std::make_shared<RedisCluster>(
                   RedisCluster::Options{address, std::move(places), std::move(namespace_name), std::move(process),
                                         timeout},
                   max_lag);
               auto ears = std::make_shared<RedisClusterEars>(nodes);
               return std::make_unique<OfRedis>(nodes->inbox(), nodes, std::move(ears), settings);
             }
             auto inbox = std::make_shared<Inbox>(max_lag);
             std::shared_ptr<RedisSentinels> sentinels;
             if (!service.empty()) {
               sentinels = std::make_shared<RedisSentinels>(std::move(places), std::move(service), address);
             }
             auto tier = std::make_shared<RedisTier>(
                 RedisTier::Options{address, std::move(namespace_name), std::move(process), std::move(sentinels)},
                 inbox);
             auto ears = std::make_shared<RedisEars>(tier);
             return std::make_unique<OfRedis>(std::move(inbox), std::move(tier), std::move(ears), settings);
           }),
           pb::arg("host"), pb::arg("port"), pb::arg("database"), pb::arg("user"), pb::arg("password"),
           pb::arg("places"), pb::arg("service"), pb::arg("cluster"), pb::arg("tls"), pb::arg("connect_timeout"),
           pb::arg("namespace"), pb::arg("process"), pb::arg("connections"), pb::arg("timeout"),
           pb::arg("most_waiting"), pb::arg("max_lag"), pb::arg("lease_age"));
}

}  // namespace stillwarm
