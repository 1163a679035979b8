// One caller's look-up of one value in Redis without Python: raw hiredis as the floor, and the tier through its queue.
// Microseconds each.
//
//   one_redis_caller <port> <key> <rounds> <calls>   -> a line per round: hiredis tier
//
// The plain key is read by GET; the tier finds it among the direct ones of namespace "default".
// Thread rule: one thread. Refuses to know: who runs it in turn with what (benchmarks/remote/redis_gets.py).
#include <hiredis/hiredis.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "core/remote/redis_tier.hpp"
#include "core/remote/request_queue.hpp"

int main(int argc, char** argv) {
  using namespace stillwarm;
  if (argc != 5) return 2;
  const int rounds = std::atoi(argv[3]), calls = std::atoi(argv[4]);
  redisContext* raw = redisConnect("127.0.0.1", std::atoi(argv[1]));
  const auto inbox = std::make_shared<Inbox>(1'000'000'000);
  const RedisTier::Options options{{.host = "127.0.0.1", .port = std::atoi(argv[1])}, "default", "one_redis_caller"};
  RequestQueue queue(std::make_shared<RedisTier>(options, inbox), {});
  const auto timed = [calls](auto&& call) {
    for (int i = 0; i < calls / 10 + 1; ++i) call();
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < calls; ++i) call();
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count() / calls;
  };
  for (int round = 0; round < rounds; ++round) {
    const double hiredis = timed([&] { freeReplyObject(redisCommand(raw, "GET %s", argv[2])); });
    const double ours = timed([&] {
      const auto look_up = std::make_shared<LookUp>();
      look_up->keys = {argv[2]};
      look_up->types = {"direct"};
      queue.run(look_up, kForever);
      if (look_up->error || !look_up->found[0].found) std::abort();
    });
    std::printf("%.2f %.2f\n", hiredis, ours);
    std::fflush(stdout);
  }
  redisFree(raw);
  queue.close(1'000'000'000);
}
