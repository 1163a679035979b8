// Compression dictionaries for Python: what a tier's values are sealed and opened with, and their study.
//
// Thread rule: with the GIL, which is the lock of Dictionaries; only Study.run releases it, and touches nothing else.
// Refuses to know: keys, requests to a tier, and when a study is due (python/stillwarm/_dictionaries.py).
#include <pybind11/stl.h>

#include <exception>

#include "bindings/bind.hpp"
#include "core/base/clock.hpp"
#include "core/codec/dictionaries.hpp"
#include "core/remote/remote_tier.hpp"

namespace stillwarm {
namespace {

namespace pb = pybind11;

using Four = std::tuple<Nanos, Nanos, Nanos, Nanos>;
using RequestHolder = std::shared_ptr<Request>;
using StudyHolder = std::shared_ptr<Study>;

constexpr std::size_t kAskedAtOnce = 16;

const Found& found(const RequestHolder& request, std::size_t i) { return static_cast<LookUp&>(*request).found.at(i); }

pb::bytes seal_value(Dictionaries& d, std::string_view key_space, std::string_view type, std::string_view sealed_as,
                     const pb::bytes& payload, std::uint8_t codec, bool negative, const Four& durations,
                     bool is_private) {
  const auto [ttl, stale_while_revalidate, stale_if_error, keep] = durations;
  return d.seal_value(
      {codec, negative, ttl, stale_while_revalidate, stale_if_error, keep, key_hash(key_space, sealed_as)},
      static_cast<std::string_view>(payload), type, is_private);
}

// What values of a look-up need, and is to be asked for: (type, number) of each.
pb::list lacking(const Dictionaries& d, const RequestHolder& request) {
  const auto& look = static_cast<const LookUp&>(*request);
  std::vector<std::pair<std::string, std::uint64_t>> wanted;
  for (std::size_t i = 0; i < look.found.size() && wanted.size() < kAskedAtOnce; ++i) {
    if (!look.found[i].has_payload) continue;
    const std::uint64_t id = d.lacks(look.types[i], look.found[i].payload, Clock::now());
    if (id == 0) continue;
    std::pair one(look.types[i], id);
    if (std::ranges::find(wanted, one) == wanted.end()) wanted.push_back(std::move(one));
  }
  pb::list list;
  for (const auto& one : wanted) list.append(pb::cast(one));
  return list;
}

void run(const StudyHolder& study) {
  std::exception_ptr thrown;
  PyThreadState* const state = PyEval_SaveThread();
  try {
    study->run();
  } catch (...) {
    thrown = std::current_exception();
  }
  PyEval_RestoreThread(state);
  if (thrown != nullptr) std::rethrow_exception(thrown);
}

pb::dict told(const Dictionaries::Counts& c) {
  pb::dict d;
  d["values"] = c.values;
  d["payload_bytes"] = c.raw;
  d["stored_bytes"] = c.stored;
  d["saved_bytes"] = c.raw - c.stored;
  d["ratio"] = c.stored == 0 ? 1.0 : static_cast<double>(c.raw) / static_cast<double>(c.stored);
  d["compressed"] = c.compressed;
  d["with_dictionary"] = c.with_dictionary;
  d["compress_seconds"] = static_cast<double>(c.compressing) / 1e9;
  d["decompressed"] = c.expanded;
  d["decompress_seconds"] = static_cast<double>(c.expanding) / 1e9;
  return d;
}

pb::dict figures(const Dictionaries& d) {
  const auto f = d.figures();
  pb::dict all = told(f.counts);
  all["dictionaries"] = f.known;
  all["dictionary_bytes"] = f.bytes;
  all["sample_bytes"] = f.sampled;
  all["trained"] = f.trained;
  all["adopted"] = f.adopted;
  all["dropped"] = f.dropped;
  all["fetched"] = f.fetched;
  all["refused"] = f.refused;
  all["missing"] = f.missing;
  pb::dict types;
  for (const auto& [name, counts, current] : d.types()) {
    pb::dict one = told(counts);
    one["dictionary"] = current == 0 ? pb::object(pb::none()) : pb::object(pb::int_(current));
    types[pb::str(name)] = one;
  }
  all["types"] = types;
  return all;
}

void bind_study(pb::module_& m) {
  pb::class_<Study, StudyHolder>(m, "Study")
      .def("run", &run)
      .def_property_readonly("type", [](const Study& s) { return s.type; })
      .def_property_readonly("trains", [](const Study& s) { return s.trains; })
      .def_property_readonly("adopts", [](const Study& s) { return s.verdict == Study::Verdict::kAdopt; })
      .def_property_readonly("made", [](const Study& s) { return s.made; })
      .def_property_readonly("best", [](const Study& s) { return s.best == nullptr ? 0 : s.best->id(); })
      .def_property_readonly(
          "sizes", [](const Study& s) { return pb::make_tuple(s.raw, s.without, s.with_present, s.with_best); })
      .def("publication", [](const Study& s, std::string_view key_space, std::string_view sealed_as) {
        return pb::bytes(s.best == nullptr ? "" : Dictionaries::publication(*s.best, key_hash(key_space, sealed_as)));
      });
}

}  // namespace

void bind_dictionaries(pb::module_& m) {
  bind_study(m);
  pb::class_<Dictionaries>(m, "Dictionaries")
      .def(pb::init([](std::size_t above) {
             CompressOptions options;
             options.above = above;
             return std::make_unique<Dictionaries>(options);
           }),
           pb::arg("compress_above"))
      .def("seal", &seal_value)
      .def("lacking", &lacking)
      .def("lacks",
           [](const Dictionaries& d, std::string_view type, const pb::bytes& stored) {
             return d.lacks(type, static_cast<std::string_view>(stored), Clock::now());
           })
      .def("knows", &Dictionaries::knows)
      .def("known", [](const Dictionaries& d) { return d.known(); })
      .def("learn",
           [](Dictionaries& d, const std::string& type, std::uint64_t id, const RequestHolder& r, std::size_t i,
              std::string_view key_space, std::string_view sealed_as) {
             const Found& f = found(r, i);
             if (f.found && f.has_payload)
               return d.learn(type, id, f.payload, key_hash(key_space, sealed_as), Clock::now());
             d.absent(type, id, Clock::now());
             return false;
           })
      .def("due", &Dictionaries::due)
      .def("begin", &Dictionaries::begin)
      .def("end", [](Dictionaries& d, const Study& study, bool published,
                     std::uint64_t doubts) { d.end(study, published, Clock::now(), doubts); })
      .def("doubt", &Dictionaries::doubt)
      .def_property_readonly("doubts", &Dictionaries::doubts)
      .def("unconfirmed",
           [](const Dictionaries& d) {
             pb::list list;
             for (const auto& w : d.unconfirmed(Clock::now())) list.append(pb::make_tuple(w.type, w.id, w.current));
             return list;
           })
      .def("confirm", [](Dictionaries& d, const std::string& type, std::uint64_t id,
                         std::uint64_t doubts) { d.confirm(type, id, Clock::now(), doubts); })
      // How long the tier keeps it for, if it is what the tier has there; else 0.
      .def_static("holds",
                  [](std::uint64_t id, const RequestHolder& r, std::size_t i, std::string_view key_space,
                     std::string_view sealed_as) -> Nanos {
                    const Found& f = found(r, i);
                    const bool there =
                        f.found && f.has_payload && Dictionaries::holds(id, f.payload, key_hash(key_space, sealed_as));
                    return there ? std::max<Nanos>(1, f.fresh_left) : 0;
                  })
      .def(
          "publication",
          [](const Dictionaries& d, const std::string& type, std::uint64_t id, std::string_view key_space,
             std::string_view sealed_as) { return pb::bytes(d.publication(type, id, key_hash(key_space, sealed_as))); })
      .def("figures", &figures)
      .def("after_fork_in_child", &Dictionaries::after_fork_in_child);
  m.attr("DICTIONARY_CODEC") = Dictionaries::kCodec;
}

}  // namespace stillwarm
