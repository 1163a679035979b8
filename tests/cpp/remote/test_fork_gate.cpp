// The fork gate: a child never finds a library's lock held, and a fork waits for nobody for long.
#include "core/remote/fork_gate.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

namespace stillwarm {
namespace {

// Forks; whether the child found `library` free.
bool is_free_in_child(std::mutex& library) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(library.try_lock() ? 0 : 1);
  int status = 0;
  return child > 0 && ::waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

struct Users {
  std::mutex library;
  std::atomic<bool> stop = false;
  std::atomic<int> rounds = 0;
  std::vector<std::thread> threads;

  template <class Use>
  Users(int count, Use use) {
    for (int i = 0; i < count; ++i) {
      threads.emplace_back([this, use] {
        while (!stop) {
          use(library);
          ++rounds;
        }
      });
    }
    while (rounds == 0) std::this_thread::yield();
  }
  ~Users() {
    stop = true;
    for (auto& thread : threads) thread.join();
  }
};

class ForkGate : public ::testing::Test {
 protected:
  void SetUp() override { WithinLibrary::prepare(); }
};

TEST_F(ForkGate, AChildNeverFindsALibrarysLockHeld) {
  Users users(3, [](std::mutex& library) {
    const WithinLibrary now;
    const std::lock_guard lock(library);
    std::this_thread::yield();
  });
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(is_free_in_child(users.library)) << i;
}

TEST_F(ForkGate, WithoutItAChildDoes) {
  std::mutex library;
  std::atomic<bool> held = false, over = false;
  std::thread user([&] {
    const std::lock_guard lock(library);
    held = true;
    while (!over) std::this_thread::yield();
  });
  while (!held) std::this_thread::yield();
  EXPECT_FALSE(is_free_in_child(library)) << "else the test above shows nothing";
  over = true;
  user.join();
}

// A thread within, which waits for a server until it is told to leave.
class Waiting {
 public:
  Waiting() {
    while (!entered_) std::this_thread::yield();
  }
  void leave() {
    over_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> entered_ = false, over_ = false;
  std::thread thread_{[this] {
    const WithinLibrary now;
    entered_ = true;
    while (!over_) std::this_thread::yield();
  }};
};

TEST_F(ForkGate, AForkGoesOnThoughSomebodyWaitsForAServerWithin) {
  Waiting waiting;
  std::mutex library;
  EXPECT_TRUE(is_free_in_child(library));
  waiting.leave();
  EXPECT_TRUE(is_free_in_child(library)) << "the one that was within has left";
}

TEST_F(ForkGate, AChildEntersAndForksItself) {
  Waiting waiting;
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(30);  // a child that waits for the parent's thread waits for ever
    std::mutex library;
    { const WithinLibrary now; }
    ::_exit(is_free_in_child(library) ? 0 : 1);
  }
  waiting.leave();
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

}  // namespace
}  // namespace stillwarm
