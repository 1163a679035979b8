// What is done with a value, and what is kept. States, invariants and what this refuses to know: see the header.
#include "core/codec/dictionaries.hpp"

#include <algorithm>
#include <chrono>
#include <new>

namespace stillwarm {
namespace {

Nanos steady() noexcept {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

void Dictionaries::Counts::add(const Counts& other) noexcept {
  values += other.values;
  raw += other.raw;
  stored += other.stored;
  compressed += other.compressed;
  with_dictionary += other.with_dictionary;
  compressing += other.compressing;
  expanded += other.expanded;
  expanding += other.expanding;
}

Dictionaries::OfType& Dictionaries::of(std::string_view type) {
  const auto found = types_.find(type);
  return found != types_.end() ? found->second : types_[std::string(type)];
}

const Dictionaries::OfType* Dictionaries::find(std::string_view type) const {
  const auto found = types_.find(type);
  return found != types_.end() ? &found->second : nullptr;
}

const Dictionaries::Known* Dictionaries::known(const OfType& of, std::uint64_t id) noexcept {
  const auto found = std::ranges::find_if(of.known, [&](const Known& k) { return k.dictionary->id() == id; });
  return found != of.known.end() ? &*found : nullptr;
}

Dictionaries::Known* Dictionaries::known(OfType& of, std::uint64_t id) noexcept {
  return const_cast<Known*>(known(static_cast<const OfType&>(of), id));
}

std::shared_ptr<const Dictionary> Dictionaries::use(OfType& of, std::uint64_t id, bool to_write) {
  Known* k = id == 0 ? nullptr : known(of, id);
  if (k == nullptr || (to_write && k->doubted)) return nullptr;
  k->used = ++ticks_;
  k->used_since = true;
  return k->dictionary;
}

// ---- values

std::string Dictionaries::seal_value(const Envelope& envelope, std::string_view payload, std::string_view type,
                                     bool is_private) {
  OfType& t = of(type);
  const bool eligible = options_.above != 0 && !is_private && payload.size() >= kWithDictionaryFrom &&
                        payload.size() <= kWithDictionaryUpTo;
  const auto dictionary = eligible ? use(t, t.current, true) : nullptr;
  Sealed how;
  const bool tries = dictionary != nullptr || (options_.above != 0 && payload.size() > options_.above);
  const Nanos before = tries ? steady() : 0;
  std::string out = seal(envelope, payload, options_, dictionary.get(), &how);
  if (tries) t.counts.compressing += steady() - before;
  ++t.counts.values;
  t.counts.raw += payload.size();
  t.counts.stored += how.body;
  t.counts.compressed += how.compressed;
  t.counts.with_dictionary += how.with_dictionary;
  if (eligible) note(t, payload, how.body);
  return out;
}

Opened Dictionaries::open_value(std::string_view stored, std::uint64_t expected_key_hash, const DecodeLimits& limits,
                                std::string_view type, Envelope& out, std::string& payload) {
  const std::uint64_t id = dictionary_of(stored);
  const auto dictionary = id != 0 ? use(of(type), id, false) : nullptr;
  const Nanos before = steady();
  const Opened status = open(stored, expected_key_hash, limits, out, payload, dictionary.get());
  if (status == Opened::kOk && out.compressed) {
    Counts& counts = of(type).counts;
    ++counts.expanded;
    counts.expanding += steady() - before;
  }
  return status;
}

void Dictionaries::note(OfType& of, std::string_view payload, std::size_t stored) {
  if (of.phase == Phase::kSampling) {
    sample(of, payload);
    return;
  }
  if (of.phase == Phase::kStudying) return;
  ++of.values;
  of.raw += payload.size();
  of.stored += stored;
  if (of.values < kMoreValues << of.failures) return;
  const double ratio = static_cast<double>(of.stored) / static_cast<double>(of.raw);
  const bool again = of.current == 0 || ratio > of.baseline * (1 + kFallen);
  of.values = of.raw = of.stored = 0;
  if (!again) return;
  of.phase = Phase::kSampling;
  of.asked = false;
}

void Dictionaries::sample(OfType& of, std::string_view payload) {
  const std::size_t before = of.sample.bytes();
  try {
    of.sample.offer(payload);
  } catch (const std::bad_alloc&) {  // the value is stored all the same
    of.sample.clear();
  }
  of.sampled_at = ++ticks_;
  sampled_ += of.sample.bytes() - before;
  while (sampled_ > kMostSampleBytes) {
    OfType* idle = nullptr;
    for (auto& [name, other] : types_) {
      if (other.sample.size() != 0 && (idle == nullptr || other.sampled_at < idle->sampled_at)) idle = &other;
    }
    if (idle == nullptr) return;
    sampled_ -= idle->sample.bytes();
    idle->sample.clear();
    idle->asked = false;
  }
}

// ---- what is known

std::uint64_t Dictionaries::lacks(std::string_view type, std::string_view stored, Nanos now) const {
  const std::uint64_t id = dictionary_of(stored);
  if (id == 0) return 0;
  const OfType* t = find(type);
  if (t != nullptr && known(*t, id) != nullptr) return 0;
  const auto missing = missing_.find({std::string(type), id});
  if (missing != missing_.end() && now < missing->second) return 0;
  return is_whole(stored) ? id : 0;
}

std::vector<std::pair<std::string, std::uint64_t>> Dictionaries::known() const {
  std::vector<std::pair<std::string, std::uint64_t>> all;
  for (const auto& [name, t] : types_) {
    for (const Known& k : t.known) all.emplace_back(name, k.dictionary->id());
  }
  return all;
}

std::shared_ptr<const Dictionary> Dictionaries::read(std::uint64_t id, std::string_view stored,
                                                     std::uint64_t key_hash) {
  Envelope envelope;
  std::string bytes;
  const DecodeLimits limits{kLargestDictionary, 0};
  if (open(stored, key_hash, limits, envelope, bytes) != Opened::kOk || envelope.codec != kCodec) return nullptr;
  auto dictionary = Dictionary::make(bytes);
  return dictionary != nullptr && dictionary->id() == id ? dictionary : nullptr;
}

bool Dictionaries::knows(std::string_view type, std::uint64_t id) const {
  const OfType* t = find(type);
  return t != nullptr && known(*t, id) != nullptr;
}

bool Dictionaries::holds(std::uint64_t id, std::string_view stored, std::uint64_t key_hash) {
  return read(id, stored, key_hash) != nullptr;
}

bool Dictionaries::learn(std::string_view type, std::uint64_t id, std::string_view stored, std::uint64_t key_hash,
                         Nanos now) {
  OfType& t = of(type);
  if (known(t, id) != nullptr) return true;
  if (auto dictionary = read(id, stored, key_hash)) {
    ++figures_.fetched;
    missing_.erase({std::string(type), id});
    add(t, std::move(dictionary), now);
    return true;
  }
  ++figures_.refused;
  absent(type, id, now);
  return false;
}

void Dictionaries::absent(std::string_view type, std::uint64_t id, Nanos now) {
  ++figures_.missing;
  if (missing_.size() >= kMostMissing) {
    std::erase_if(missing_, [&](const auto& one) { return one.second <= now; });
    if (missing_.size() >= kMostMissing) missing_.clear();
  }
  missing_[{std::string(type), id}] = now + kMissingPause;
}

void Dictionaries::add(OfType& of, std::shared_ptr<const Dictionary> dictionary, Nanos now) {
  of.known.push_back({std::move(dictionary), ++ticks_, now, false, false});
  while (of.known.size() > kMostOfType) {
    auto oldest = of.known.end();
    for (auto one = of.known.begin(); one != of.known.end(); ++one) {
      if (one->dictionary->id() == of.current) continue;
      if (oldest == of.known.end() || one->used < oldest->used) oldest = one;
    }
    of.known.erase(oldest);
  }
  make_room();
}

void Dictionaries::make_room() {
  for (;;) {
    std::size_t count = 0, bytes = 0;
    OfType* whose = nullptr;
    std::size_t which = 0;
    for (auto& [name, t] : types_) {
      for (std::size_t i = 0; i < t.known.size(); ++i) {
        ++count;
        bytes += t.known[i].dictionary->memory();
        if (whose == nullptr || t.known[i].used < whose->known[which].used) {
          whose = &t;
          which = i;
        }
      }
    }
    if (count <= 1 || (count <= kMostInAll && bytes <= kMostBytes)) return;
    if (whose->known[which].dictionary->id() == whose->current) {
      whose->current = 0;
      settle(*whose, 1);
    }
    whose->known.erase(whose->known.begin() + static_cast<std::ptrdiff_t>(which));
  }
}

// ---- studies

bool Dictionaries::trains(const OfType& of) noexcept {
  return of.sample.size() >= kFewest && (of.sample.offered() >= kEnough || of.sample.full());
}

std::vector<std::string> Dictionaries::due() const {
  std::vector<std::string> names;
  for (const auto& [name, t] : types_) {
    if (t.phase != Phase::kSampling) continue;
    if (trains(t) || (!t.asked && t.sample.size() >= kAskAt)) names.push_back(name);
  }
  return names;
}

std::shared_ptr<Study> Dictionaries::begin(std::string_view type) {
  OfType& t = of(type);
  if (t.phase != Phase::kSampling || (!trains(t) && t.sample.size() < kAskAt)) return nullptr;
  auto study = std::make_shared<Study>();
  study->type = type;
  study->options = options_;
  study->samples = t.sample.payloads();
  study->seen = t.sample.offered();
  study->trains = trains(t);
  for (const Known& k : t.known) {
    if (k.dictionary->id() == t.current) {
      study->present = k.dictionary;
    } else if (!k.doubted) {
      study->others.push_back(k.dictionary);
    }
  }
  t.phase = Phase::kStudying;
  t.asked = true;
  return study;
}

void Dictionaries::settle(OfType& of, double baseline) {
  sampled_ -= of.sample.bytes();
  of.sample.clear();
  of.phase = Phase::kSettled;
  of.values = of.raw = of.stored = 0;
  of.baseline = baseline;
}

void Dictionaries::end(const Study& study, bool published, Nanos now, std::uint64_t doubts) {
  OfType& t = of(study.type);
  if (t.phase != Phase::kStudying) return;
  if (study.trains) ++figures_.trained;
  const auto ratio = [&](std::size_t stored) {
    return study.raw == 0 ? 1 : static_cast<double>(stored) / static_cast<double>(study.raw);
  };
  if (study.verdict == Study::Verdict::kAdopt && (!study.made || published)) {
    Known* k = known(t, study.best->id());
    if (k != nullptr || study.made) {  // else it has left meanwhile
      t.current = study.best->id();
      if (k == nullptr) {
        add(t, study.best, now);
        if (Known* mine = known(t, t.current); mine != nullptr) mine->doubted = doubts != doubts_;
      }
      t.failures = 0;
      ++figures_.adopted;
      settle(t, ratio(study.with_best));
      return;
    }
  }
  if (!study.trains) {  // on with the sample, until there is enough to train from
    t.phase = Phase::kSampling;
    return;
  }
  if (study.verdict == Study::Verdict::kDrop) {
    t.current = 0;
    ++figures_.dropped;
  }
  t.failures = std::min(t.failures + 1, kMostFailures);
  settle(t, ratio(t.current == 0 ? study.without : study.with_present));
}

// ---- what the tier holds

void Dictionaries::doubt() noexcept {
  ++doubts_;
  for (auto& [name, t] : types_) {
    for (Known& k : t.known) k.doubted = true;
  }
}

std::vector<Dictionaries::Wanted> Dictionaries::unconfirmed(Nanos now) const {
  std::vector<Wanted> wanted;
  for (const auto& [name, t] : types_) {
    for (const Known& k : t.known) {
      const bool current = k.dictionary->id() == t.current;
      if (k.doubted ? current || k.used_since : k.used_since && now - k.confirmed_at >= kConfirmEvery) {
        wanted.push_back({name, k.dictionary->id(), current});
      }
    }
  }
  return wanted;
}

void Dictionaries::confirm(std::string_view type, std::uint64_t id, Nanos now, std::uint64_t doubts) {
  Known* k = known(of(type), id);
  if (k == nullptr || doubts != doubts_) return;
  k->doubted = false;
  k->used_since = false;
  k->confirmed_at = now;
}

std::string Dictionaries::publication(std::string_view type, std::uint64_t id, std::uint64_t key_hash) const {
  const OfType* t = find(type);
  const Known* k = t != nullptr ? known(*t, id) : nullptr;
  if (k == nullptr) return {};
  return publication(*k->dictionary, key_hash);
}

std::string Dictionaries::publication(const Dictionary& dictionary, std::uint64_t key_hash) {
  Envelope envelope;
  envelope.codec = kCodec;
  envelope.key_hash = key_hash;
  return seal(envelope, dictionary.bytes(), {});
}

// ---- figures, fork

Dictionaries::Figures Dictionaries::figures() const {
  Figures figures = figures_;
  for (const auto& [name, t] : types_) {
    figures.counts.add(t.counts);
    figures.known += t.known.size();
    for (const Known& k : t.known) figures.bytes += k.dictionary->memory();
  }
  figures.sampled = sampled_;
  return figures;
}

std::vector<std::tuple<std::string, Dictionaries::Counts, std::uint64_t>> Dictionaries::types() const {
  std::vector<std::tuple<std::string, Counts, std::uint64_t>> list;
  for (const auto& [name, t] : types_) list.emplace_back(name, t.counts, t.current);
  return list;
}

void Dictionaries::after_fork_in_child() noexcept {
  for (auto& [name, t] : types_) {
    if (t.phase != Phase::kStudying) continue;
    t.phase = Phase::kSampling;
    t.asked = false;
  }
}

}  // namespace stillwarm
