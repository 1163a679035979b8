#include "core/remote/recovery.hpp"

#include <chrono>
#include <utility>

namespace stillwarm {

namespace {

constexpr std::size_t kAtOnce = 128;
constexpr auto kPause = std::chrono::milliseconds(200);

QueuedWrite queued(const std::shared_ptr<Store>& store) {
  return {store->key, store->type, store->tags, store->payload.size() + 64, store};
}

// The same request once more: the first one's outcome may still be on its way.
std::shared_ptr<Store> again(const Store& s) {
  auto store = std::make_shared<Store>(s.slot, s.mode);
  store->background = true;
  store->key = s.key;
  store->type = s.type;
  store->payload = s.payload;
  store->born = s.born;
  store->tags = s.tags;
  store->columns = s.columns;
  store->fresh_for = s.fresh_for;
  store->keep_for = s.keep_for;
  return store;
}

}  // namespace

// Waits for some requests at once.
class Recovery::Batch : public Sink {
 public:
  void ended(const std::shared_ptr<Request>&) override {
    const std::lock_guard lock(mutex_);
    --left_;
    done_.notify_all();
  }
  void expect(std::size_t n) { left_ = n; }
  void wait() {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return left_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable done_;
  std::size_t left_ = 0;
};

void Recovery::write(const std::shared_ptr<Store>& store) {
  store->background = true;
  {
    const std::lock_guard lock(mutex_);
    owed_.forget(store->key);  // this one is newer
    if (owed_.concerns(store->key, store->type, store->tags)) return keep(store);
    ++under_way_;
  }
  store->sink = shared_from_this();
  queue_->post(store);
}

void Recovery::owe(const std::string& name, bool soft) {
  const std::lock_guard lock(mutex_);
  owed_.add(name, soft);
  owes_.store(true, std::memory_order_release);
  wake();
}

void Recovery::owe(const std::shared_ptr<Store>& store) {
  const auto later = again(*store);  // the first attempt may still be under way
  const std::lock_guard lock(mutex_);
  if (later->born.empty()) later->born = inbox_->begin_poll().first;  // nothing younger than this moment is overwritten
  keep(later);
}

void Recovery::keep(const std::shared_ptr<Store>& store) {
  owed_.add(queued(store));
  wake();
}

bool Recovery::concerns(std::string_view key, std::string_view type, std::span<const std::string> tags) const {
  const std::lock_guard lock(mutex_);
  return owed_.invalidations() > 0 && owed_.concerns(key, type, tags);
}

// A write behind came to its end. The queue's lock is held.
void Recovery::ended(const std::shared_ptr<Request>& request) {
  const auto store = std::static_pointer_cast<Store>(request);
  const std::lock_guard lock(mutex_);
  --under_way_;
  changed_.notify_all();
  switch (store->error.fault) {
    case TierFault::kOk:
      ++(store->stored ? figures_.written : figures_.refused);
      if (!store->stored) inbox_->post({"key:" + store->key, false});
      return;
    case TierFault::kRejected:
      ++figures_.rejected;
      figures_.last_rejection = store->error;
      return;
    case TierFault::kClosed:
      return;
    default:
      keep(again(*store));
  }
}

Recovery::Figures Recovery::figures() const {
  const std::lock_guard lock(mutex_);
  Figures figures = figures_;
  figures.owed_invalidations = owed_.invalidations();
  figures.owed_writes = owed_.writes();
  figures.dropped = owed_.dropped();
  return figures;
}

bool Recovery::drain(Nanos wait) {
  std::unique_lock lock(mutex_);
  return changed_.wait_until(
      lock, std::chrono::steady_clock::time_point(std::chrono::nanoseconds(steady_now() + wait)),
      [this] { return under_way_ == 0 && owed_.empty(); });
}

void Recovery::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

void Recovery::forget() {
  owed_.clear();
  owes_.store(false, std::memory_order_release);
  under_way_ = 0;
  working_ = false;
}

void Recovery::wake() {
  if (closed_) return;
  if (!working_) {
    auto* share = new std::shared_ptr<Recovery>(shared_from_this());
    working_ = start_thread(
        [](void* given) {
          const std::unique_ptr<std::shared_ptr<Recovery>> mine(static_cast<std::shared_ptr<Recovery>*>(given));
          (*mine)->work();
        },
        share);
    if (!working_) delete share;  // no more threads: tried again with what is owed next
  }
}

void Recovery::work() {
  std::unique_lock lock(mutex_);
  while (!closed_ && !owed_.empty()) {
    bool moved = false;
    try {
      moved = owed_.invalidations() > 0 ? send_invalidations(lock) : send_writes(lock);
    } catch (const std::bad_alloc&) {
    }
    changed_.notify_all();
    if (!moved && !closed_) changed_.wait_for(lock, kPause);
  }
  working_ = false;
}

bool Recovery::send_invalidations(std::unique_lock<std::mutex>& lock) {
  const auto owed = owed_.peek_invalidations(kAtOnce);
  const auto batch = std::make_shared<Batch>();
  std::vector<std::shared_ptr<Invalidate>> requests;
  for (const auto& one : owed) {
    requests.push_back(std::make_shared<Invalidate>(one.name, one.soft));
    requests.back()->sink = batch;
  }
  batch->expect(requests.size());
  lock.unlock();
  for (const auto& r : requests) queue_->post(r);
  batch->wait();
  lock.lock();
  for (std::size_t i = 0; i < owed.size(); ++i) {
    if (requests[i]->error) {
      owed_.put_back();
      return i > 0;
    }
    owed_.confirmed(owed[i].number);
  }
  owes_.store(owed_.invalidations() > 0, std::memory_order_release);
  return true;
}

bool Recovery::send_writes(std::unique_lock<std::mutex>& lock) {
  const auto owed = owed_.peek_writes(kAtOnce);
  const auto batch = std::make_shared<Batch>();
  std::vector<std::shared_ptr<Store>> requests;
  for (const auto& one : owed) {
    requests.push_back(again(*std::static_pointer_cast<Store>(one.request)));
    requests.back()->background = false;
    requests.back()->sink = batch;
  }
  batch->expect(requests.size());
  lock.unlock();
  for (const auto& r : requests) queue_->post(r);
  batch->wait();
  lock.lock();
  bool moved = false;
  for (std::size_t i = 0; i < owed.size(); ++i) {
    const Store& store = *requests[i];
    if (store.error && store.error.fault != TierFault::kRejected) continue;
    moved = true;
    if (store.error) {
      ++figures_.rejected;
      figures_.last_rejection = store.error;
    } else {
      ++(store.stored ? figures_.written : figures_.refused);
      if (!store.stored) inbox_->post({"key:" + store.key, false});
    }
    owed_.confirmed(owed[i]);
  }
  return moved;
}

}  // namespace stillwarm
