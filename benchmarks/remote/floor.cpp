// The floor of a look-up: raw libpq and libpqxx against the server, one connection, one 1 KB value; microseconds each.
//
//   floor <connection string> <table> <key> <rounds> <calls>   -> one line per round: libpq libpqxx_nontransaction
//
// Thread rule: one thread.
// Refuses to know: stillwarm. benchmarks/remote/one_caller.py builds it and runs it in turn with the others.
#include <libpq-fe.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <pqxx/pqxx>
#include <string>

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  const std::string text = std::string("SELECT payload FROM ") + argv[2] + " WHERE key = $1 AND expires_at > now()";
  const int rounds = std::atoi(argv[4]), calls = std::atoi(argv[5]);
  PGconn* raw = PQconnectdb(argv[1]);
  PQclear(PQprepare(raw, "g", text.c_str(), 1, nullptr));
  pqxx::connection link(argv[1]);
  link.prepare("g", text);
  const char* values[1] = {argv[3]};
  const auto timed = [calls](auto&& call) {
    for (int i = 0; i < calls / 10; ++i) call();
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
    std::printf("%.2f %.2f\n", libpq, libpqxx);
    std::fflush(stdout);
  }
  PQfinish(raw);
}
