// Answers requests from the store: one call from environ or scope to the finished answer, or to the question that is
// left.
//
// Thread rule: with the GIL. No Python code runs in here but the digest of a variant.
// Refuses to know: how the app is called, and what waits for it (python/stillwarm/web).
//
// Stored answers are Python tuples of two kinds, which web/facts.py defines:
//   Stored    (status, line, headers, body, etag, last_modified, at, age, flags)
//   Variants  (names, nonce, text, stored)     the first variant of a URI whose answers vary, and where the others are
#pragma once

#include <pybind11/pybind11.h>

#include "bindings/cache_base.hpp"
#include "bindings/http_facts.hpp"
#include "core/http/policy.hpp"
#include "core/http/status.hpp"

namespace stillwarm::py {

enum StoredField : std::uint8_t { kStatus, kLine, kHeaders, kBody, kETag, kLastModified, kAt, kAge, kFlags };
enum VariantsField : std::uint8_t { kNames, kNonce, kText, kFirst };
inline constexpr long kFlagAuthorization = 1;  // shared_with_authorization
inline constexpr long kFlagAsgi = 2;           // its headers are bytes

// What a request asks, and what the policy says before anything was looked up.
struct Question {
  OwnedRequest request;
  http::Before before;
  std::string primary;  // key of the URI
  std::string key;      // that of the variant, where the URI has any
  std::string variant;  // its text (http_facts.hpp), or empty
  std::string debug;    // what the request gave as debug token
};

class Front {
 public:
  Front(CacheBase* cache, ScopeId scope, FrontOptions options, http::Route route, PyTypeObject* stored,
        PyTypeObject* variants, PyObject* digest, std::string debug_token);

  // A finished answer, or (always, unless `may_answer`) the question. `own_key` replaces the URI; `part` is what else
  // the key depends on.
  pybind11::object look(pybind11::handle raw, std::optional<std::string_view> own_key,
                        std::optional<std::string_view> part, bool may_answer);

  // The stored answer as this request gets it: whole, 304, 206 or 416.
  pybind11::object render(const Question& question, pybind11::handle stored, Nanos fresh_left, std::string_view label,
                          const http::Status& status) const;
  // X-Cache and Cache-Status of an answer that came from the app.
  pybind11::list marks(const Question& question, std::string_view label, const http::Status& status) const;

  http::After after(const Question& question, int status, pybind11::handle headers, std::string* vary) const;
  // Whether the stored answer may be used for this request at all.
  http::Use use(const Question& question, pybind11::handle stored, Nanos fresh_left) const;

  // The stored answer for this request in a value of the cache: itself, that of its variant, or nullptr. Borrowed.
  PyObject* match(const Question& question, PyObject* value) const;
  std::string variant_text(pybind11::handle raw, const std::vector<std::string>& names) const;

  std::uint64_t hits() const noexcept { return hits_; }

 private:
  std::string variant_key(const Question& question, std::string_view nonce, std::string_view text) const;
  bool debugs(const Question& question) const noexcept;
  void check(pybind11::handle stored) const;
  pybind11::object answered(const Question& question, PyObject* stored, const http::Answer& answer,
                            pybind11::list headers) const;
  void add_marks(pybind11::list& headers, const Question& question, std::string_view label,
                 const http::Status& status) const;
  pybind11::object rendered(const Question& question, PyObject* stored, http::Stored facts, std::string_view label,
                            const http::Status& status) const;
  http::Use use(const Question& question, PyObject* stored, const http::Stored& facts) const;

  // A header pair that depends on a number of seconds, and mostly is the one of the last answer.
  struct OfSecond {
    http::Seconds seconds = 0;
    pybind11::object pair;
  };
  template <class Make>
  static pybind11::object of_second(OfSecond& last, http::Seconds seconds, const Make& make) {
    if (!last.pair || last.seconds != seconds) last = {seconds, make()};
    return last.pair;
  }
  pybind11::object pair(pybind11::handle name, std::string_view value) const;
  pybind11::object text(std::string_view ascii) const;
  void add(pybind11::list& headers, pybind11::handle name, std::string_view value) const;

  CacheBase* cache_;  // the front's owner keeps it alive
  ScopeId scope_;
  FrontOptions options_;
  http::Route route_;
  PyTypeObject* stored_;
  PyTypeObject* variants_;
  pybind11::object digest_;  // bytes -> 32 hexadecimal digits
  std::string debug_token_;
  pybind11::object age_, x_cache_, cache_status_, content_length_, content_range_;  // names
  pybind11::object hit_;                                                            // X-Cache: HIT
  mutable OfSecond last_age_, last_ttl_;
  std::uint64_t hits_ = 0;
};

}  // namespace stillwarm::py
