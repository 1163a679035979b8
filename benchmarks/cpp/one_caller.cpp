// One caller's look-up of one 1 KB value without Python: raw libpq and libpqxx as the floor, and the tier through its
// queue. Microseconds each.
//
//   one_caller <connection string> <table> <key> <rounds> <calls>   -> a line per round: libpq libpqxx tier
//
// The table has (key, payload, expires_at); the tier finds the key among the direct ones of namespace "default".
// Thread rule: one thread. Refuses to know: who runs it in turn with what (benchmarks/remote/gets.py).
#include <libpq-fe.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <pqxx/pqxx>
#include <string>

#include "core/remote/postgres_tier.hpp"
#include "core/remote/request_queue.hpp"

int main(int argc, char** argv) {
  using namespace stillwarm;
  if (argc != 6) return 2;
  const std::string text = std::string("SELECT payload FROM ") + argv[2] + " WHERE key = $1 AND expires_at > now()";
  const int rounds = std::atoi(argv[4]), calls = std::atoi(argv[5]);
  PGconn* raw = PQconnectdb(argv[1]);
  PQclear(PQprepare(raw, "g", text.c_str(), 1, nullptr));
  pqxx::connection link(argv[1]);
  link.prepare("g", text);
  const char* values[1] = {argv[3]};
  const auto inbox = std::make_shared<Inbox>(1'000'000'000);
  const auto tier = std::make_shared<PostgresTier>(
      PostgresTier::Options{argv[1], "default", "stillwarm", "one_caller", {}, false, 250'000'000}, inbox);
  RequestQueue queue(tier, {});
  const auto timed = [calls](auto&& call) {
    for (int i = 0; i < calls / 10 + 1; ++i) call();
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < calls; ++i) call();
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count() / calls;
  };
  for (int round = 0; round < rounds; ++round) {
    const double libpq = timed([&] { PQclear(PQexecPrepared(raw, "g", 1, values, nullptr, nullptr, 1)); });
    const double libpqxx = timed([&] {
      pqxx::nontransaction transaction(link);
      const auto rows = transaction.exec_prepared("g", values[0]);
      const pqxx::binarystring payload(rows[0][0]);
    });
    const double ours = timed([&] {
      const auto look_up = std::make_shared<LookUp>();
      look_up->keys = {argv[3]};
      look_up->types = {"direct"};
      queue.run(look_up, kForever);
      if (look_up->error || !look_up->found[0].found) std::abort();
    });
    std::printf("%.2f %.2f %.2f\n", libpq, libpqxx, ours);
    std::fflush(stdout);
  }
  PQfinish(raw);
  queue.close(1'000'000'000);
}
