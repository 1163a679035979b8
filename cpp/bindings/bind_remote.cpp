// What every remote tier does for Python, and how it comes through a fork.
//
// Thread rule: with the GIL; `run` releases it while it waits.
// Refuses to know: see remote_tier.hpp.
#include <pthread.h>
#include <pybind11/stl.h>

#include "bindings/bind.hpp"
#include "bindings/cache_base.hpp"
#include "bindings/remote_request.hpp"
#include "bindings/remote_tier.hpp"
#include "core/remote/completions.hpp"
#include "core/remote/fork_gate.hpp"

namespace stillwarm {

namespace pb = pybind11;

namespace {

// The tables and the inbox of a tier, whole in the child of a fork: their locks are held across it. By the C library's
// hooks and not by Python's, between which the interpreter may go on with another thread: one that asks for such a lock
// with the GIL would wait for a thread that waits for the GIL.
class Whole {
 public:
  static void add(const RemoteTier* tier) {
    static const int registered = pthread_atfork(before, after, after);
    if (registered != 0) throw std::bad_alloc();
    WithinLibrary::prepare();  // whose hook then is the first to run, before these locks are taken
    const std::lock_guard lock(mutex());
    all().push_back(tier);
  }
  static void remove(const RemoteTier* tier) {
    const std::lock_guard lock(mutex());
    std::erase(all(), tier);
  }

 private:
  // Neither is ever destroyed: a fork may be the last thing that a process does.
  static std::mutex& mutex() {
    static auto* const m = new std::mutex;
    return *m;
  }
  static std::vector<const RemoteTier*>& all() {
    static auto* const v = new std::vector<const RemoteTier*>;
    return *v;
  }
  static void before() {
    mutex().lock();
    for (const RemoteTier* one : all()) {
      one->connector->lock();
      one->inbox->lock();
    }
  }
  static void after() {
    for (const RemoteTier* one : all()) {
      one->inbox->unlock();
      one->connector->unlock();
    }
    mutex().unlock();
  }
};

// Long waits of the process's end: without the GIL, since other threads may need it to come to theirs.
template <class F>
void without_gil(F&& f) {
  PyThreadState* const state = PyEval_SaveThread();
  f();
  PyEval_RestoreThread(state);
}

pb::dict health(const RemoteTier& t) {
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
  const auto parts = t.connector->parts();
  d["parts"] = parts.all;
  d["parts_away"] = parts.away;
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

RemoteTier::RemoteTier(std::shared_ptr<Inbox> i, std::shared_ptr<Connector> c, std::shared_ptr<Ears> ears,
                       const Settings& s)
    : inbox(std::move(i)),
      connector(std::move(c)),
      queue(std::make_shared<RequestQueue>(
          connector,
          RequestQueue::Options{.links = s.connections, .most_waiting = s.most_waiting, .timeout = s.timeout})),
      recovery(std::make_shared<Recovery>(queue, inbox)),
      listener(std::make_shared<Listener>(std::move(ears), s.max_lag, s.timeout, s.lease_age)),
      echo(std::make_shared<Echo>(inbox)) {
  Whole::add(this);
}

RemoteTier::~RemoteTier() {
  Whole::remove(this);
  close(0);
}

void RemoteTier::close(Nanos wait) {
  recovery->close();
  listener->close();
  queue->close(wait);
}

void RemoteTier::after_fork_in_child(const std::string& process) {
  inbox->lost();
  connector->set_process(process);
  queue->after_fork_in_child();
  listener->after_fork_in_child();
  // What the parent owes the parent writes; a lock of its thread may be taken here for ever.
  static_cast<void>(new std::shared_ptr<Recovery>(recovery));
  recovery = std::make_shared<Recovery>(queue, inbox);
}

void bind_remote(pb::module_& m) {
  bind_requests(m);
  pb::class_<RemoteTier>(m, "RemoteTier")
      .def("run", [](RemoteTier& t,
                     const std::shared_ptr<Request>& r) { return error_or_none(wait_for(*t.queue, r, t.echo)); })
      .def("post",
           [](RemoteTier& t, const std::shared_ptr<Request>& r, const std::shared_ptr<Completions>& completions,
              std::uint64_t token) {
             r->sink = completions;
             r->token = token;
             t.queue->post(r);
           })
      .def("abandon", [](RemoteTier& t,
                         const std::shared_ptr<Request>& r) { t.queue->abandon(r, is_write(*r) ? t.echo : nullptr); })
      .def("write_behind",
           [](RemoteTier& t, const std::shared_ptr<Request>& r) {
             t.recovery->write(std::static_pointer_cast<Store>(r));
           })
      .def("owe_write", [](RemoteTier& t,
                           const std::shared_ptr<Request>& r) { t.recovery->owe(std::static_pointer_cast<Store>(r)); })
      .def("owes_writes", [](const RemoteTier& t) { return t.recovery->owes_writes(); })
      .def("overtaken", [](const RemoteTier& t, std::string_view name) { t.recovery->overtaken(name); })
      .def("owed_set",
           [](const RemoteTier& t, std::string_view key, std::string_view type) -> pb::object {
             const auto payload = t.recovery->owed_set(key, type);
             return payload ? pb::object(pb::bytes(*payload)) : pb::none();
           })
      .def("owes_set", [](const RemoteTier& t, std::string_view key,
                          std::string_view type) { return t.recovery->owes_set(key, type); })
      .def("owe", [](RemoteTier& t, const std::string& name, bool soft) { t.recovery->owe(name, soft); })
      .def("forget",
           [](RemoteTier& t, std::string name) { t.queue->post(std::make_shared<Invalidate>(std::move(name), false)); })
      .def("took", [](const RemoteTier& t) { t.recovery->took(); })
      .def("owes", [](const RemoteTier& t) { return t.recovery->owes(); })
      .def(
          "concerns",
          [](const RemoteTier& t, const std::string& key, const std::string& type, const std::vector<std::string>& tags,
             const std::shared_ptr<Request>& look_up) { return t.recovery->concerns(key, type, tags, look_up->asked); })
      .def("attach",
           [](const RemoteTier& t, pb::handle cache, bool strict) {
             if (!PyObject_TypeCheck(cache.ptr(), py::cache_base_type)) throw pb::type_error("expected a Cache");
             auto* base = py::as_cache(cache.ptr());
             if (py::flow_of(base) == nullptr) throw pb::error_already_set();
             base->inbox = new std::shared_ptr<Inbox>(t.inbox);
             base->flow->set_attention(t.inbox->attention(), strict);
             base->flow->note_hits();
           })
      .def("messages",
           [](const RemoteTier& t) {
             auto [messages, until] = t.inbox->read();
             pb::list list;
             for (const Message& message : messages) list.append(pb::make_tuple(message.name, message.soft));
             return pb::make_tuple(list, until);
           })
      .def("applied", [](RemoteTier& t, std::uint64_t until) { t.inbox->applied(until); })
      .def("moment", [](const RemoteTier& t, std::string_view key) { return t.inbox->moment(key); })
      .def("trusts", [](const RemoteTier& t, std::string_view key) { return t.inbox->trusts(key, Clock::now()); })
      .def("is_away", [](const RemoteTier& t, std::string_view key) { return t.connector->is_away(key); })
      .def_property_readonly("partly", [](const RemoteTier& t) { return t.connector->parts().some_answer; })
      .def("lost", [](RemoteTier& t) { t.inbox->lost(); })
      .def("trusted_until", [](const RemoteTier& t) { return t.inbox->trusted_until(); })
      .def("used", [](RemoteTier& t) { t.listener->used(); })
      .def("tell", [](RemoteTier& t) { t.listener->tell(); })
      .def("hold_lease",
           [](RemoteTier& t, std::string key, std::string owner) {
             t.listener->hold_lease({std::move(key), std::move(owner)});
           })
      // The same, and the tier forgets it soon; nobody waits for that.
      .def("give_back",
           [](RemoteTier& t, std::string key, std::string owner) {
             t.listener->drop_lease({key, owner});
             auto lease = std::make_shared<Lease>(Lease::Verb::kGiveBack);
             lease->background = true;
             lease->key = std::move(key);
             lease->owner = std::move(owner);
             t.queue->post(lease);
           })
      .def("drop_lease",
           [](RemoteTier& t, std::string key, std::string owner) {
             t.listener->drop_lease({std::move(key), std::move(owner)});
           })
      .def("health", health)
      .def("drain",
           [](RemoteTier& t, Nanos wait) {
             bool done = false;
             without_gil([&] { done = t.recovery->drain(wait); });
             return done;
           })
      .def("close", [](RemoteTier& t, Nanos wait) { without_gil([&] { t.close(wait); }); })
      .def("after_fork_in_child", &RemoteTier::after_fork_in_child);
}

}  // namespace stillwarm
