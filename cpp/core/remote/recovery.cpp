#include "core/remote/recovery.hpp"

#include <chrono>
#include <new>
#include <utility>

namespace stillwarm {

namespace {

constexpr std::size_t kAtOnce = 128;
constexpr auto kPause = std::chrono::milliseconds(200);

std::size_t size_of(const Store& s) noexcept {
  std::size_t size = s.payload.size() + 64;
  for (const auto& column : s.columns) size += column ? column->size() : 0;
  return size;
}

QueuedWrite queued(const std::shared_ptr<Store>& store) {
  return {store->key, store->type, store->tags, size_of(*store), store};
}

// The server will not take it later either. One that only reads for now (a standby about to be promoted) will, and so
// will one that wants another password than ours: until then it is as good as away.
bool is_final(const TierError& error) noexcept {
  return error.fault == TierFault::kRejected && error.state != "25006" && error.state != "NOAUTH" &&
         error.state != "WRONGPASS";
}

// It is the name that the server does not take (too long for an index, no regular expression): it never will.
bool is_about_the_name(const TierError& error) noexcept {
  return error.fault == TierFault::kRejected && (error.state.starts_with("22") || error.state.starts_with("54"));
}

void note(TierError& last, const TierError& error) noexcept {
  try {
    last = error;
  } catch (const std::bad_alloc&) {
    last.fault = error.fault;
  }
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
  store->owed_since = s.owed_since;
  return store;
}

}  // namespace

// Waits for some requests at once.
class Recovery::Batch : public Sink {
 public:
  void ended(const std::shared_ptr<Request>&) noexcept override {
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
  const std::size_t size = size_of(*store);
  {
    const std::lock_guard lock(mutex_);
    owed_.forget(store->key, store->type);  // this one is newer
    if (under_way_ >= kMostUnderWay || under_way_bytes_ + size > kMostBytesUnderWay ||
        owed_.concerns(store->key, store->type, store->tags)) {
      return keep(store);
    }
    ++under_way_;
    under_way_bytes_ += size;
  }
  try {
    store->sink = shared_from_this();
    queue_->post(store);
  } catch (const std::bad_alloc&) {  // it is not in the queue
    const std::lock_guard lock(mutex_);
    store->sink = nullptr;
    --under_way_;
    under_way_bytes_ -= size;
    keep(store);
  }
}

void Recovery::owe(const std::string& name, bool soft) {
  const std::lock_guard lock(mutex_);
  owed_.add(name, soft);
  owes_.store(true, std::memory_order_release);
  wake();
}

void Recovery::owe(const std::shared_ptr<Store>& store) {
  const auto later = again(*store);  // the first attempt may still be under way
  later->owed_since = steady_now();
  const std::lock_guard lock(mutex_);
  if (later->born.empty()) later->born = inbox_->moment(later->key);  // nothing younger than this moment is overwritten
  keep(later);
}

void Recovery::keep(const std::shared_ptr<Store>& store) noexcept {
  try {
    owed_.add(queued(store));
  } catch (const std::bad_alloc&) {  // lost, and the older one of its key with it
    owed_.forget(store->key, store->type);
    ++figures_.dropped;
  }
  wake();
}

// What is in memory is not what others see.
void Recovery::outdated(const Store& store) noexcept {
  try {
    inbox_->post({"key:" + store.key, false});
  } catch (const std::bad_alloc&) {
    inbox_->post({"all", false});
  }
}

void Recovery::announce(const QueuedInvalidation& done) noexcept {
  try {
    inbox_->post({done.name, done.soft});
  } catch (const std::bad_alloc&) {
    inbox_->post({"all", false});
  }
}

bool Recovery::concerns(std::string_view key, std::string_view type, std::span<const std::string> tags,
                        Nanos asked) const {
  const std::lock_guard lock(mutex_);
  if (owed_.invalidations() > 0 && owed_.concerns(key, type, tags)) return true;
  return asked <= delivered_at_ && delivered_.concerns(key, type, tags);
}

void Recovery::overtaken(std::string_view name) noexcept {
  const std::lock_guard lock(mutex_);
  if (owed_.writes() > 0) owed_.overtaken(name);
}

bool Recovery::owes_set(std::string_view key, std::string_view type) const noexcept {
  const std::lock_guard lock(mutex_);
  const auto found = std::static_pointer_cast<const Store>(owed_.find(key, type));
  return found != nullptr && found->mode == Store::Mode::kSet;
}

std::optional<std::string> Recovery::owed_set(std::string_view key, std::string_view type) const {
  const std::lock_guard lock(mutex_);
  const auto found = std::static_pointer_cast<const Store>(owed_.find(key, type));
  if (found == nullptr || found->mode != Store::Mode::kSet) return std::nullopt;
  if (found->fresh_for < kForever && steady_now() - found->owed_since >= found->fresh_for) return std::nullopt;
  return found->payload;
}

// The tier has taken or refused it.
void Recovery::settled(const Store& store) noexcept {
  if (store.error) {
    ++figures_.rejected;
    note(figures_.last_rejection, store.error);
    rejects_.store(true, std::memory_order_release);
    return;
  }
  figures_.last_rejection.fault = TierFault::kOk;
  ++(store.stored ? figures_.written : figures_.refused);
  if (!store.stored) outdated(store);
}

void Recovery::took() noexcept {
  if (!rejects_.load(std::memory_order_acquire)) return;
  const std::lock_guard lock(mutex_);
  figures_.last_rejection.fault = TierFault::kOk;
  rejects_.store(false, std::memory_order_release);
}

// A write behind came to its end. The queue's lock is held.
void Recovery::ended(const std::shared_ptr<Request>& request) noexcept {
  const auto store = std::static_pointer_cast<Store>(request);
  const std::lock_guard lock(mutex_);
  --under_way_;
  under_way_bytes_ -= size_of(*store);
  changed_.notify_all();
  if (store->error.fault == TierFault::kClosed) return;
  if (!store->error || is_final(store->error)) return settled(*store);
  try {
    const auto once_more = again(*store);
    if (once_more->born.empty()) once_more->born = inbox_->moment(once_more->key);
    keep(once_more);
  } catch (const std::bad_alloc&) {
    owed_.forget(store->key, store->type);
    ++figures_.dropped;
  }
}

Recovery::Figures Recovery::figures() const {
  const std::lock_guard lock(mutex_);
  Figures figures = figures_;
  figures.owed_invalidations = owed_.invalidations();
  figures.owed_writes = owed_.writes();
  figures.dropped += owed_.dropped();
  return figures;
}

bool Recovery::drain(Nanos wait) {
  std::unique_lock lock(mutex_);
  return changed_.wait_until(lock, std::chrono::steady_clock::time_point(std::chrono::nanoseconds(steady_now() + wait)),
                             [this] { return under_way_ == 0 && owed_.empty(); });
}

void Recovery::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

void Recovery::forget() {
  owed_.clear();
  delivered_.clear();
  owes_.store(false, std::memory_order_release);
  under_way_ = 0;
  under_way_bytes_ = 0;
  working_ = false;
}

void Recovery::wake() noexcept {
  if (closed_ || working_) return;
  auto* share = new (std::nothrow) std::shared_ptr<Recovery>(shared_from_this());
  working_ = share != nullptr && start_thread(
                                     [](void* given) {
                                       const std::unique_ptr<std::shared_ptr<Recovery>> mine(
                                           static_cast<std::shared_ptr<Recovery>*>(given));
                                       (*mine)->work();
                                     },
                                     share);
  if (!working_) delete share;  // no more threads: tried again with what is owed next
}

void Recovery::work() {
  std::unique_lock lock(mutex_);
  while (!closed_ && !owed_.empty()) {
    bool moved = false;
    try {
      moved = owed_.invalidations() > 0 ? send_invalidations(lock) : send_writes(lock);
    } catch (const std::bad_alloc&) {  // thrown with the lock, before anything was sent
      owed_.put_back();
    }
    changed_.notify_all();
    // Whatever else changes meanwhile: while the tier is away it is asked once a pause.
    if (!moved) changed_.wait_for(lock, kPause, [this] { return closed_; });
  }
  working_ = false;
}

// Posts them all and waits until each has ended, without the lock.
void Recovery::send(std::unique_lock<std::mutex>& lock, Batch& batch,
                    std::span<const std::shared_ptr<Request>> requests) noexcept {
  batch.expect(requests.size());
  lock.unlock();
  for (const auto& r : requests) {
    try {
      queue_->post(r);
    } catch (const std::bad_alloc&) {  // it is not in the queue
      r->sink = nullptr;
      r->error.fault = TierFault::kUnavailable;
      batch.ended(r);
    }
  }
  batch.wait();
  lock.lock();
}

bool Recovery::send_invalidations(std::unique_lock<std::mutex>& lock) {
  const auto owed = owed_.peek_invalidations(kAtOnce);
  const auto batch = std::make_shared<Batch>();
  std::vector<std::shared_ptr<Request>> requests;
  for (const auto& one : owed) {
    requests.push_back(std::make_shared<Invalidate>(one.name, one.soft));
    requests.back()->sink = batch;
  }
  send(lock, *batch, requests);
  for (std::size_t i = 0; i < owed.size(); ++i) {
    if (requests[i]->error) {
      owed_.put_back();
      if (!is_about_the_name(requests[i]->error)) return i > 0;
      owed_.add_all();  // else it would hold up what comes after it for ever
      return true;
    }
    // A look-up that the tier answered before may not have come home yet, and nobody tells this process of its own.
    announce(owed[i]);
    delivered(owed[i]);
    owed_.confirmed(owed[i].number);
  }
  owes_.store(owed_.invalidations() > 0, std::memory_order_release);
  return true;
}

void Recovery::delivered(const QueuedInvalidation& done) noexcept {
  const Nanos now = steady_now();
  if (now - delivered_at_ > kLingers) delivered_.clear();
  delivered_.add(done.name, done.soft);
  delivered_at_ = now;
  lingers_until_.store(now + kLingers, std::memory_order_relaxed);
}

bool Recovery::send_writes(std::unique_lock<std::mutex>& lock) {
  const auto owed = owed_.peek_writes(kAtOnce);
  const auto batch = std::make_shared<Batch>();
  std::vector<std::shared_ptr<Request>> requests;
  for (const auto& one : owed) {
    requests.push_back(again(*std::static_pointer_cast<Store>(one.request)));
    requests.back()->background = false;
    requests.back()->sink = batch;
  }
  send(lock, *batch, requests);
  bool moved = false;
  for (std::size_t i = 0; i < owed.size(); ++i) {
    const auto& store = static_cast<const Store&>(*requests[i]);
    if (store.error && !is_final(store.error)) continue;
    moved = true;
    settled(store);
    owed_.confirmed(owed[i]);
  }
  return moved;
}

}  // namespace stillwarm
