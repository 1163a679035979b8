// The PostgreSQL tier for Python: its parts put together, one object per cache.
//
// Thread rule: with the GIL; `run` releases it while it waits.
// Refuses to know: values, keys and caches' settings (python/stillwarm/_tier.py), SQL (core/remote/postgres_sql).
#include <pthread.h>
#include <pybind11/stl.h>

#include "bindings/bind.hpp"
#include "bindings/cache_base.hpp"
#include "bindings/remote_request.hpp"
#include "core/remote/completions.hpp"
#include "core/remote/postgres_listener.hpp"
#include "core/remote/recovery.hpp"

namespace stillwarm {
namespace {

namespace pb = pybind11;

// The tables and the inbox of a tier, whole in the child of a fork: their locks are held across it. By the C library's
// hooks and not by Python's, between which the interpreter may go on with another thread: one that asks for such a lock
// with the GIL would wait for a thread that waits for the GIL.
class Whole {
 public:
  Whole(PostgresTier& tier, Inbox& inbox) : tier_(tier), inbox_(inbox) {
    static const int registered = pthread_atfork(before, after, after);
    if (registered != 0) throw std::bad_alloc();
    const std::lock_guard lock(mutex());
    all().push_back(this);
  }
  Whole(const Whole&) = delete;
  Whole& operator=(const Whole&) = delete;
  ~Whole() {
    const std::lock_guard lock(mutex());
    std::erase(all(), this);
  }

 private:
  // Neither is ever destroyed: a fork may be the last thing that a process does.
  static std::mutex& mutex() {
    static auto* const m = new std::mutex;
    return *m;
  }
  static std::vector<const Whole*>& all() {
    static auto* const v = new std::vector<const Whole*>;
    return *v;
  }
  static void before() {
    mutex().lock();
    for (const Whole* one : all()) {
      one->tier_.lock();
      one->inbox_.lock();
    }
  }
  static void after() {
    for (const Whole* one : all()) {
      one->inbox_.unlock();
      one->tier_.unlock();
    }
    mutex().unlock();
  }

  PostgresTier& tier_;
  Inbox& inbox_;
};

struct Tier {
  std::shared_ptr<Inbox> inbox;
  std::shared_ptr<PostgresTier> tier;
  std::shared_ptr<RequestQueue> queue;
  std::shared_ptr<Recovery> recovery;
  std::shared_ptr<PostgresListener> listener;
  std::shared_ptr<Echo> echo;
  const Whole whole{*tier, *inbox};

  Tier(std::string connection_string, std::string namespace_name, std::string schema, std::string process,
       std::vector<std::string> setup, bool pooler, unsigned connections, Nanos timeout, std::size_t most_waiting,
       Nanos max_lag, Nanos lease_age)
      : inbox(std::make_shared<Inbox>(max_lag)),
        tier(std::make_shared<PostgresTier>(
            PostgresTier::Options{std::move(connection_string), std::move(namespace_name), std::move(schema),
                                  std::move(process), std::move(setup), pooler},
            inbox)),
        queue(std::make_shared<RequestQueue>(
            tier, RequestQueue::Options{.links = connections, .most_waiting = most_waiting, .timeout = timeout})),
        recovery(std::make_shared<Recovery>(queue, inbox)),
        listener(std::make_shared<PostgresListener>(tier, max_lag, timeout, lease_age)),
        echo(std::make_shared<Echo>(inbox)) {}
  Tier(const Tier&) = delete;
  Tier& operator=(const Tier&) = delete;
  ~Tier() { close(0); }

  void close(Nanos wait) {
    recovery->close();
    listener->close();
    queue->close(wait);
  }

  void after_fork_in_child(std::string process) {
    inbox->lost();
    tier->set_process(std::move(process));
    queue->after_fork_in_child();
    listener->after_fork_in_child();
    // What the parent owes the parent writes; a lock of its thread may be taken here for ever.
    static_cast<void>(new std::shared_ptr<Recovery>(recovery));
    recovery = std::make_shared<Recovery>(queue, inbox);
  }
};

// Long waits of the process's end: without the GIL, since other threads may need it to come to theirs.
template <class F>
void without_gil(F&& f) {
  PyThreadState* const state = PyEval_SaveThread();
  f();
  PyEval_RestoreThread(state);
}

pb::dict health(const Tier& t) {
  const auto h = t.queue->health();
  const auto r = t.recovery->figures();
  const auto l = t.listener->figures();
  pb::dict d;
  d["circuit"] = text_of(h.circuit);
  d["connections"] = h.open;
  d["waiting"] = h.waiting;
  d["served"] = h.served;
  d["round_trips"] = h.round_trips;
  d["failures"] = h.failures;
  d["recent_calls"] = h.recent_calls;
  d["recent_failures"] = h.recent_failures;
  d["last_error"] = error_or_none(h.last_error);
  d["owed_invalidations"] = r.owed_invalidations;
  d["owed_writes"] = r.owed_writes;
  d["written"] = r.written;
  d["refused"] = r.refused;
  d["rejected"] = r.rejected;
  d["dropped"] = r.dropped;
  d["last_rejection"] = error_or_none(r.last_rejection);
  d["linked"] = l.linked;
  d["polls"] = l.polls;
  d["told"] = l.told;
  d["heard"] = l.heard;
  d["reconnects"] = l.reconnects;
  d["listener_error"] = error_or_none(l.last_error);
  return d;
}

}  // namespace

void bind_postgres(pb::module_& m) {
  bind_requests(m);
  m.def("check_connection_string", check_connection_string);
  pb::class_<Tier>(m, "PostgresTier")
      .def(pb::init<std::string, std::string, std::string, std::string, std::vector<std::string>, bool, unsigned, Nanos,
                    std::size_t, Nanos, Nanos>(),
           pb::arg("connection_string"), pb::arg("namespace"), pb::arg("schema"), pb::arg("process"), pb::arg("setup"),
           pb::arg("pooler"), pb::arg("connections"), pb::arg("timeout"), pb::arg("most_waiting"), pb::arg("max_lag"),
           pb::arg("lease_age"))
      .def("add_table",
           [](Tier& t, std::string type, std::string name, std::string key_column,
              std::vector<std::pair<std::string, std::string>> columns, bool has_payload, std::string setup) {
             return t.tier->add_table(
                 {std::move(type), std::move(name), std::move(key_column), std::move(columns), has_payload},
                 std::move(setup));
           })
      .def("run",
           [](Tier& t, const std::shared_ptr<Request>& r) { return error_or_none(wait_for(*t.queue, r, t.echo)); })
      .def("post",
           [](Tier& t, const std::shared_ptr<Request>& r, const std::shared_ptr<Completions>& completions,
              std::uint64_t token) {
             r->sink = completions;
             r->token = token;
             t.queue->post(r);
           })
      .def("abandon",
           [](Tier& t, const std::shared_ptr<Request>& r) { t.queue->abandon(r, is_write(*r) ? t.echo : nullptr); })
      .def("write_behind",
           [](Tier& t, const std::shared_ptr<Request>& r) { t.recovery->write(std::static_pointer_cast<Store>(r)); })
      .def("owe_write",
           [](Tier& t, const std::shared_ptr<Request>& r) { t.recovery->owe(std::static_pointer_cast<Store>(r)); })
      .def("owe", [](Tier& t, const std::string& name, bool soft) { t.recovery->owe(name, soft); })
      .def("forget",
           [](Tier& t, std::string name) { t.queue->post(std::make_shared<Invalidate>(std::move(name), false)); })
      .def("owes", [](const Tier& t) { return t.recovery->owes(); })
      .def("concerns", [](const Tier& t, const std::string& key, const std::string& type,
                          const std::vector<std::string>& tags) { return t.recovery->concerns(key, type, tags); })
      .def("attach",
           [](const Tier& t, pb::handle cache, bool strict) {
             if (!PyObject_TypeCheck(cache.ptr(), py::cache_base_type)) throw pb::type_error("expected a Cache");
             auto* base = py::as_cache(cache.ptr());
             if (py::flow_of(base) == nullptr) throw pb::error_already_set();
             base->inbox = new std::shared_ptr<Inbox>(t.inbox);
             base->flow->set_attention(t.inbox->attention(), strict);
             base->flow->note_hits();
           })
      .def("messages",
           [](const Tier& t) {
             auto [messages, until] = t.inbox->read();
             pb::list list;
             for (const Message& message : messages) list.append(pb::make_tuple(message.name, message.soft));
             return pb::make_tuple(list, until);
           })
      .def("applied", [](Tier& t, std::uint64_t until) { t.inbox->applied(until); })
      .def("lost", [](Tier& t) { t.inbox->lost(); })
      .def("trusted_until", [](const Tier& t) { return t.inbox->trusted_until(); })
      .def("used", [](Tier& t) { t.listener->used(); })
      .def("tell", [](Tier& t) { t.listener->tell(); })
      .def("hold_lease", [](Tier& t, const std::string& owner) { t.listener->hold_lease(owner); })
      // The same, and the tier forgets it soon; nobody waits for that.
      .def("give_back",
           [](Tier& t, std::string key, std::string owner) {
             t.listener->drop_lease(owner);
             auto lease = std::make_shared<Lease>(Lease::Verb::kGiveBack);
             lease->background = true;
             lease->key = std::move(key);
             lease->owner = std::move(owner);
             t.queue->post(lease);
           })
      .def("drop_lease", [](Tier& t, const std::string& owner) { t.listener->drop_lease(owner); })
      .def("health", health)
      .def("drain",
           [](Tier& t, Nanos wait) {
             bool done = false;
             without_gil([&] { done = t.recovery->drain(wait); });
             return done;
           })
      .def("close", [](Tier& t, Nanos wait) { without_gil([&] { t.close(wait); }); })
      .def("after_fork_in_child", &Tier::after_fork_in_child);
}

}  // namespace stillwarm
