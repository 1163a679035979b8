#include "bindings/remote_request.hpp"

#include <pybind11/stl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <exception>

#include "bindings/bind.hpp"
#include "core/codec/dictionaries.hpp"
#include "core/remote/completions.hpp"

namespace stillwarm {

namespace pb = pybind11;

namespace {

constexpr Nanos kSlice = 50'000'000;

// The thread on which Python runs signal handlers. Asked of the kernel: threading.main_thread() is Python code, which
// must not run here, and the child of a fork has another.
bool on_main_thread() noexcept { return ::syscall(SYS_gettid) == ::getpid(); }

pb::object bytes_or_none(bool there, const std::string& bytes) {
  return there ? pb::object(pb::bytes(bytes)) : pb::object(pb::none());
}

// None: nothing there. Else (status, body or None, columns or None, codec, negative, (ttl, swr, sie, keep), fresh_left,
// tags, bytes, version); status as in OPENED.
pb::object opened(const Found& f, const std::string& type, std::string_view key_space, std::string_view sealed_as,
                  std::size_t max_value, Dictionaries* dictionaries) {
  if (!f.found) return pb::none();
  Envelope e;
  std::string body;
  Opened status = Opened::kOk;
  if (f.has_payload) {
    DecodeLimits limits;
    limits.largest = max_value;
    const std::uint64_t hash = key_hash(key_space, sealed_as);
    status = dictionaries == nullptr ? open(f.payload, hash, limits, e, body)
                                     : dictionaries->open_value(f.payload, hash, limits, type, e, body);
  }
  const bool readable = f.has_payload && status == Opened::kOk;
  return pb::make_tuple(static_cast<int>(status), bytes_or_none(readable, body),
                        f.columns.empty() ? pb::object(pb::none()) : pb::cast(f.columns), static_cast<int>(e.codec),
                        e.negative, pb::make_tuple(e.ttl, e.stale_while_revalidate, e.stale_if_error, e.keep),
                        f.fresh_left, f.tags.empty() ? pb::object(pb::tuple(0)) : pb::cast(f.tags), f.payload.size(),
                        f.version);
}

using RequestHolder = std::shared_ptr<Request>;

template <class T>
T& as(const RequestHolder& r) {
  return static_cast<T&>(*r);
}

std::vector<std::optional<std::string>> texts(const pb::handle& list) {
  return list.cast<std::vector<std::optional<std::string>>>();
}

RequestHolder store(std::uint32_t slot, int mode, std::string key, std::string type, const pb::bytes& payload,
                    std::string born, std::string expected, std::vector<std::string> tags, const pb::handle& columns,
                    Nanos fresh_for, Nanos keep_for) {
  auto s = std::make_shared<Store>(slot, static_cast<Store::Mode>(mode));
  s->key = std::move(key);
  s->type = std::move(type);
  s->payload = payload;
  s->born = std::move(born);
  s->expected = std::move(expected);
  s->tags = std::move(tags);
  if (!columns.is_none()) s->columns = texts(columns);
  s->fresh_for = fresh_for;
  s->keep_for = keep_for;
  return s;
}

}  // namespace

pb::object error_or_none(const TierError& error) {
  if (!error) return pb::none();
  return pb::make_tuple(static_cast<int>(error.fault), error.state, error.message);
}

bool is_write(const Request& r) noexcept {
  return r.kind == Request::Kind::kStore || r.kind == Request::Kind::kInvalidate;
}

TierError wait_for(RequestQueue& queue, const std::shared_ptr<Request>& request, const std::shared_ptr<Sink>& echo) {
  const bool sliced = on_main_thread();
  for (;;) {
    std::optional<TierError> outcome;
    std::exception_ptr thrown;
    PyThreadState* const state = PyEval_SaveThread();
    try {
      outcome = queue.run(request, sliced ? steady_now() + kSlice : kForever);
    } catch (...) {
      thrown = std::current_exception();
    }
    PyEval_RestoreThread(state);
    if (thrown != nullptr) std::rethrow_exception(thrown);
    if (outcome) return *outcome;
    if (PyErr_CheckSignals() != 0) {
      queue.abandon(request, is_write(*request) ? echo : nullptr);
      throw pb::error_already_set();
    }
  }
}

void bind_requests(pb::module_& m) {
  pb::class_<Completions, std::shared_ptr<Completions>>(m, "Completions")
      .def(pb::init<>())
      .def("fileno", &Completions::fd)
      .def("take", &Completions::take);
  pb::class_<Request, RequestHolder>(m, "Request")
      .def_property(
          "origin", [](const RequestHolder& r) { return as<Store>(r).origin; },
          [](const RequestHolder& r, std::string name) { as<Store>(r).origin = std::move(name); })
      .def_property_readonly("kind", [](const RequestHolder& r) { return static_cast<int>(r->kind); })
      .def_property_readonly("once", [](const RequestHolder& r) { return r->once; })
      .def_property_readonly("error", [](const RequestHolder& r) { return error_or_none(r->error); })
      .def_property(
          "timeout", [](const RequestHolder& r) { return r->timeout; },
          [](const RequestHolder& r, Nanos t) { r->timeout = t; })
      .def_property_readonly("seen", [](const RequestHolder& r) { return as<LookUp>(r).seen; })
      .def(
          "opened",
          [](const RequestHolder& r, std::size_t i, std::string_view key_space, std::string_view sealed_as,
             std::size_t max_value, Dictionaries* dictionaries) {
            const auto& look = as<LookUp>(r);
            return opened(look.found.at(i), look.types.at(i), key_space, sealed_as, max_value, dictionaries);
          },
          pb::arg("i"), pb::arg("namespace"), pb::arg("sealed_as"), pb::arg("max_value"),
          pb::arg("dictionaries") = pb::none(), pb::pos_only())
      .def("payload",
           [](const RequestHolder& r, std::size_t i) { return pb::bytes(as<LookUp>(r).found.at(i).payload); })
      .def_property_readonly("key", [](const RequestHolder& r) { return as<Store>(r).key; })
      .def_property_readonly("sent", [](const RequestHolder& r) { return pb::bytes(as<Store>(r).payload); })
      .def_property_readonly("stored", [](const RequestHolder& r) { return as<Store>(r).stored; })
      .def_property_readonly("version", [](const RequestHolder& r) { return as<Store>(r).version; })
      .def_property_readonly("count", [](const RequestHolder& r) { return as<Invalidate>(r).count; })
      .def_property_readonly("taken",
                             [](const RequestHolder& r) {
                               return r->kind == Request::Kind::kLease ? as<Lease>(r).taken : as<LookUp>(r).taken;
                             })
      .def("with_lease",
           [](const RequestHolder& r, std::string name, std::string owner, Nanos age) {
             if (r->kind == Request::Kind::kStore) {
               as<Store>(r).lease = std::move(name);
               as<Store>(r).owner = std::move(owner);
               return;
             }
             auto& l = as<LookUp>(r);
             l.lease = std::move(name);
             l.owner = std::move(owner);
             l.lease_age = age;
           })
      .def_property_readonly("outcomes", [](const RequestHolder& r) { return as<Poll>(r).outcomes; })
      .def_property_readonly("rows", [](const RequestHolder& r) {
        pb::list rows;
        for (const auto& row : as<Query>(r).rows) rows.append(pb::tuple(pb::cast(row)));
        return rows;
      });
  m.def(
      "look_up",
      [](std::uint32_t slot, std::vector<std::string> keys, std::vector<std::string> types,
         bool whole) -> RequestHolder {
        auto l = std::make_shared<LookUp>(slot);
        if (keys.size() != types.size()) throw pb::value_error("one type per key");
        l->keys = std::move(keys);
        l->types = std::move(types);
        l->whole = whole;
        return l;
      },
      pb::arg("slot"), pb::arg("keys"), pb::arg("types"), pb::arg("whole") = false);
  m.def("store", store);
  m.def("invalidation", [](std::string name, bool soft) -> RequestHolder {
    return std::make_shared<Invalidate>(std::move(name), soft);
  });
  m.def("poll", [](std::vector<std::string> asked) -> RequestHolder {
    auto p = std::make_shared<Poll>();
    p->asked = std::move(asked);
    return p;
  });
  m.def("lease", [](bool takes, std::string key, std::string owner, Nanos age) -> RequestHolder {
    auto l = std::make_shared<Lease>(takes ? Lease::Verb::kTake : Lease::Verb::kGiveBack);
    l->key = std::move(key);
    l->owner = std::move(owner);
    l->age = age;
    return l;
  });
  m.def("flush",
        [](std::uint64_t batch, std::vector<std::string> keys, std::vector<std::string> types,
           std::vector<std::uint64_t> hits) -> RequestHolder {
          if (keys.size() != types.size() || keys.size() != hits.size())
            throw pb::value_error("one type and count per key");
          auto f = std::make_shared<Flush>();
          f->batch = batch;
          f->keys = std::move(keys);
          f->types = std::move(types);
          f->hits = std::move(hits);
          return f;
        });
  m.def(
      "query",
      [](std::string text, const pb::handle& parameters, Nanos timeout, bool once) -> RequestHolder {
        auto q = std::make_shared<Query>();
        q->once = once;
        q->text = std::move(text);
        q->parameters = texts(parameters);
        q->timeout = timeout;
        return q;
      },
      pb::arg("text"), pb::arg("parameters"), pb::arg("timeout"), pb::arg("once") = false);
}

}  // namespace stillwarm
