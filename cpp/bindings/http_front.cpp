#include "bindings/http_front.hpp"

#include <ctime>
#include <utility>

#include "core/http/fields.hpp"

namespace stillwarm::py {
namespace {

namespace pb = pybind11;

PyObject* field(PyObject* tuple, int which) noexcept { return PyTuple_GET_ITEM(tuple, which); }

std::string_view view_of(PyObject* o) noexcept {
  if (PyBytes_Check(o)) return {PyBytes_AS_STRING(o), static_cast<std::size_t>(PyBytes_GET_SIZE(o))};
  if (!PyUnicode_Check(o)) return {};
  Py_ssize_t size = 0;
  const char* text = PyUnicode_AsUTF8AndSize(o, &size);
  if (text == nullptr) PyErr_Clear();
  return text == nullptr ? std::string_view{} : std::string_view{text, static_cast<std::size_t>(size)};
}

http::Stored facts_of(PyObject* stored, Nanos fresh_left) {
  http::Stored s;
  s.status = static_cast<int>(PyLong_AsLong(field(stored, kStatus)));
  s.age = std::max<Nanos>(0, Clock::now() - PyLong_AsLongLong(field(stored, kAt))) +
          PyLong_AsLongLong(field(stored, kAge)) * 1'000'000'000;
  s.fresh_left = fresh_left;
  s.shared_with_authorization = (PyLong_AsLong(field(stored, kFlags)) & kFlagAuthorization) != 0;
  s.etag = view_of(field(stored, kETag));
  s.last_modified = view_of(field(stored, kLastModified));
  s.size = static_cast<std::uint64_t>(PyBytes_GET_SIZE(field(stored, kBody)));
  return s;
}

// The first stored field of that name (lower case); empty without one. The text belongs to `stored`.
std::string_view header_of(PyObject* stored, std::string_view name) noexcept {
  PyObject* headers = field(stored, kHeaders);
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(headers); ++i) {
    PyObject* pair = PyTuple_GET_ITEM(headers, i);
    if (http::equal_in_any_case(view_of(PyTuple_GET_ITEM(pair, 0)), name)) return view_of(PyTuple_GET_ITEM(pair, 1));
  }
  return {};
}

// Equal length and content, in a time that depends on the length alone.
bool same_secret(std::string_view a, std::string_view b) noexcept {
  unsigned different = a.size() != b.size();
  for (std::size_t i = 0; i < a.size() && i < b.size(); ++i) different |= static_cast<unsigned>(a[i] ^ b[i]);
  return different == 0;
}

// The texts of ASGI's messages, made once.
struct Messages {
  PyObject *type, *start, *status, *headers, *rest, *body;
};
const Messages& messages() {
  static const Messages made = {PyUnicode_InternFromString("type"),
                                PyUnicode_InternFromString("http.response.start"),
                                PyUnicode_InternFromString("status"),
                                PyUnicode_InternFromString("headers"),
                                PyUnicode_InternFromString("http.response.body"),
                                PyUnicode_InternFromString("body")};
  return made;
}

void set(pb::dict& dict, PyObject* name, pb::handle value) {
  if (PyDict_SetItem(dict.ptr(), name, value.ptr()) != 0) throw pb::error_already_set();
}

struct LineText {
  int status;
  const char* line;
};
constexpr LineText kLines[] = {
    {206, "206 Partial Content"}, {304, "304 Not Modified"}, {416, "416 Range Not Satisfiable"}};

}  // namespace

Front::Front(CacheBase* cache, ScopeId scope, FrontOptions options, http::Route route, PyTypeObject* stored,
             PyTypeObject* variants, PyObject* digest, std::string debug_token)
    : cache_(cache),
      scope_(scope),
      options_(std::move(options)),
      route_(route),
      stored_(stored),
      variants_(variants),
      digest_(pb::reinterpret_borrow<pb::object>(digest)),
      debug_token_(std::move(debug_token)) {
  age_ = text(options_.asgi ? "age" : "Age");
  x_cache_ = text(options_.asgi ? "x-cache" : "X-Cache");
  cache_status_ = text(options_.asgi ? "cache-status" : "Cache-Status");
  content_length_ = text(options_.asgi ? "content-length" : "Content-Length");
  content_range_ = text(options_.asgi ? "content-range" : "Content-Range");
  hit_ = pair(x_cache_, "HIT");
}

pb::object Front::text(std::string_view ascii) const {
  if (options_.asgi) return pb::bytes(ascii.data(), ascii.size());
  return pb::reinterpret_steal<pb::object>(
      PyUnicode_DecodeLatin1(ascii.data(), static_cast<Py_ssize_t>(ascii.size()), nullptr));
}

pb::object Front::pair(pb::handle name, std::string_view value) const { return pb::make_tuple(name, text(value)); }

void Front::add(pb::list& headers, pb::handle name, std::string_view value) const { headers.append(pair(name, value)); }

pb::object Front::look(pb::handle raw, std::optional<std::string_view> own_key, std::optional<std::string_view> part,
                       bool may_answer) {
  Question q;
  q.primary = options_.prefix;
  if (!own_key) q.primary += "GET:";
  const bool read = options_.asgi ? read_asgi(raw.ptr(), options_, q.request, q.primary)
                                  : read_wsgi(raw.ptr(), options_, q.request, q.primary);
  if (!read) throw pb::error_already_set();
  if (own_key) q.primary.assign(options_.prefix).append(*own_key);
  if (part) q.primary.append("~").append(*part);
  q.before = http::before(q.request.view(), route_);
  if (q.before.look && q.primary.size() > options_.max_key) {
    q.before.look = false;
    q.before.store = false;
    q.before.why = http::Why::kKeyTooLong;
    q.before.forward = http::Forward::kBypass;
  }
  q.key = q.primary;
  if (!debug_token_.empty()) read_variant(raw.ptr(), options_.asgi, {"stillwarm-debug"}, q.debug);
  if (!q.before.look) return pb::cast(std::move(q));
  PyFlow* flow = cache_->flow;
  for (int step = 0; step < 2; ++step) {
    const auto key = pb::reinterpret_steal<pb::object>(
        PyUnicode_DecodeUTF8(q.key.data(), static_cast<Py_ssize_t>(q.key.size()), nullptr));
    if (!key) throw pb::error_already_set();
    PyObject* item = key.ptr();
    Probe probe;
    if (!text_probe(cache_, scope_, &item, probe)) throw pb::error_already_set();
    const Nanos now = Clock::now();
    const Index i = flow->memory().find(probe);  // keys of this scope are texts: no code runs
    if (i == kFindError) throw pb::error_already_set();
    if (i == kNone || !flow->confirm(i)) break;
    Entry& e = flow->memory()[i];
    if (e.flags & kFlagNegative) break;
    auto* value = static_cast<PyObject*>(e.value);
    if (step == 0 && Py_TYPE(value) == variants_) {
      std::vector<std::string> names;
      for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(field(value, kNames)); ++n) {
        names.emplace_back(view_of(PyTuple_GET_ITEM(field(value, kNames), n)));
      }
      q.variant = variant_text(raw, names);
      if (q.variant != view_of(field(value, kText))) {
        const auto record = pb::reinterpret_borrow<pb::object>(value);  // `digest_` is Python: it may leave the cache
        q.key = variant_key(q, view_of(field(value, kNonce)), q.variant);
        continue;
      }
      value = field(value, kFirst);
    }
    if (Py_TYPE(value) != stored_ || !may_answer) break;
    if (flow->hit(probe, now) != i) break;  // not fresh, or watched
    const Nanos fresh_left = life_of(e, flow->scopes()[e.scope].durations).fresh_until - now;
    // The value may leave the cache while its answer is made.
    const auto kept = pb::reinterpret_borrow<pb::object>(value);
    const http::Stored facts = facts_of(value, fresh_left);
    if (use(q, value, facts) != http::Use::kServe) break;
    ++flow->scopes()[scope_].stats.hits;
    ++hits_;
    http::Status status;
    status.hit = true;
    return rendered(q, value, facts, "HIT", status);
  }
  return pb::cast(std::move(q));
}

http::Use Front::use(const Question& question, pb::handle stored, Nanos fresh_left) const {
  check(stored);
  return use(question, stored.ptr(), facts_of(stored.ptr(), fresh_left));
}

http::Use Front::use(const Question& question, PyObject* stored, const http::Stored& facts) const {
  if (((PyLong_AsLong(field(stored, kFlags)) & kFlagAsgi) != 0) != options_.asgi) return http::Use::kReload;
  return http::use(question.before, facts, route_);
}

void Front::check(pb::handle stored) const {
  if (Py_TYPE(stored.ptr()) != stored_) throw pb::type_error("expected a Stored");
}

PyObject* Front::match(const Question& question, PyObject* value) const {
  if (Py_TYPE(value) == stored_) return value;
  if (Py_TYPE(value) != variants_ || question.variant != view_of(field(value, kText))) return nullptr;
  return field(value, kFirst);
}

std::string Front::variant_text(pb::handle raw, const std::vector<std::string>& names) const {
  std::string text;
  if (!read_variant(raw.ptr(), options_.asgi, names, text)) throw pb::error_already_set();
  return text;
}

std::string Front::variant_key(const Question& question, std::string_view nonce, std::string_view text) const {
  const pb::object digits = digest_(pb::bytes(text.data(), text.size()));
  return std::string(question.primary).append("~").append(nonce).append("~").append(view_of(digits.ptr()));
}

bool Front::debugs(const Question& question) const noexcept {
  if (debug_token_.empty()) return false;
  const std::string_view given = question.debug;
  constexpr std::string_view kBefore = "stillwarm-debug=";
  return given.starts_with(kBefore) && given.ends_with('\n') &&
         same_secret(given.substr(kBefore.size(), given.size() - kBefore.size() - 1), debug_token_);
}

pb::list Front::marks(const Question& question, std::string_view label, const http::Status& status) const {
  pb::list headers;
  add_marks(headers, question, label, status);
  return headers;
}

void Front::add_marks(pb::list& headers, const Question& question, std::string_view label,
                      const http::Status& status) const {
  http::Status s = status;
  if (debugs(question)) {
    s.key = question.key;
    if (question.before.why != http::Why::kNone && s.detail.empty()) s.detail = http::text_of(question.before.why);
  } else {
    s.key = s.detail = {};
  }
  const auto made = [&] {
    std::string bytes;
    http::append_cache_status(bytes, s);
    return pair(cache_status_, bytes);
  };
  if (label == "HIT") {
    headers.append(hit_);
  } else {
    add(headers, x_cache_, label);
  }
  if (s.hit && s.has_ttl && s.key.empty() && s.detail.empty()) {  // of a hit the ttl says all
    headers.append(of_second(last_ttl_, s.ttl, made));
  } else {
    headers.append(made());
  }
}

pb::object Front::render(const Question& question, pb::handle stored, Nanos fresh_left, std::string_view label,
                         const http::Status& status) const {
  check(stored);
  return rendered(question, stored.ptr(), facts_of(stored.ptr(), fresh_left), label, status);
}

pb::object Front::rendered(const Question& question, PyObject* stored, http::Stored facts, std::string_view label,
                           const http::Status& status) const {
  const http::Request request = question.request.view();
  http::Seconds wall = http::kNever;
  if (!request.if_modified_since.empty() || !request.if_range.empty()) {  // dates are compared only where one is given
    wall = static_cast<http::Seconds>(std::time(nullptr));
    facts.date = header_of(stored, "date");
  }
  const http::Answer answer = http::answer(request, facts, wall);
  const Nanos left = facts.fresh_left;
  http::Status s = status;
  s.has_ttl = left != kForever;
  // Seconds that are left are rounded down, those it is too old up: a stale answer never says 0.
  s.ttl = left >= 0 ? left / 1'000'000'000 : -((-left + 999'999'999) / 1'000'000'000);
  pb::list headers;
  PyObject* kept = field(stored, kHeaders);
  const Py_ssize_t size = PyTuple_GET_SIZE(kept);
  if (answer.status == facts.status) {
    headers = pb::list(size);
    for (Py_ssize_t i = 0; i < size; ++i) PyList_SET_ITEM(headers.ptr(), i, Py_NewRef(PyTuple_GET_ITEM(kept, i)));
  } else {
    for (Py_ssize_t i = 0; i < size; ++i) {
      PyObject* one = PyTuple_GET_ITEM(kept, i);
      const std::string_view name = view_of(PyTuple_GET_ITEM(one, 0));
      if (answer.status == 304 && !http::is_in_304(name)) continue;
      if (http::equal_in_any_case(name, "content-length")) continue;
      if (answer.status == 416 && http::equal_in_any_case(name, "content-type")) continue;
      headers.append(pb::reinterpret_borrow<pb::object>(one));
    }
  }
  const auto age = static_cast<http::Seconds>(facts.age / 1'000'000'000);
  headers.append(of_second(last_age_, age, [&] { return pair(age_, std::to_string(age)); }));
  add_marks(headers, question, label, s);
  return answered(question, stored, answer, std::move(headers));
}

pb::object Front::answered(const Question& question, PyObject* stored, const http::Answer& answer,
                           pb::list headers) const {
  PyObject* whole = field(stored, kBody);
  const auto size = static_cast<std::uint64_t>(PyBytes_GET_SIZE(whole));
  const bool as_stored = answer.status == PyLong_AsLong(field(stored, kStatus));
  pb::object body = pb::reinterpret_borrow<pb::object>(whole);
  if (answer.status == 206) {
    add(headers, content_range_,
        "bytes " + std::to_string(answer.first) + "-" + std::to_string(answer.last) + "/" + std::to_string(size));
    add(headers, content_length_, std::to_string(answer.last - answer.first + 1));
    body = pb::bytes(PyBytes_AS_STRING(whole) + answer.first, answer.last - answer.first + 1);
  } else if (answer.status == 416) {
    add(headers, content_range_, "bytes */" + std::to_string(size));
    add(headers, content_length_, "0");
    body = pb::bytes();
  } else if (!as_stored) {
    body = pb::bytes();
  }
  if (question.before.head) body = pb::bytes();
  if (options_.asgi) {
    const Messages& m = messages();
    pb::dict start, rest;
    set(start, m.type, m.start);
    set(start, m.status, pb::int_(answer.status));
    set(start, m.headers, headers);
    set(rest, m.type, m.rest);
    set(rest, m.body, body);
    return pb::make_tuple(start, rest);
  }
  pb::object line = pb::reinterpret_borrow<pb::object>(field(stored, kLine));
  for (const LineText& known : kLines) {
    if (!as_stored && known.status == answer.status) line = pb::str(known.line);
  }
  return pb::make_tuple(line, headers, body);
}

http::After Front::after(const Question& question, int status, pb::handle headers, std::string* vary) const {
  std::string cache_control, expires, date, age, last_modified, varies;
  bool set_cookie = false, content_range = false, has_vary = false;
  const auto joined = [](std::string& to, std::string_view value) {
    if (!to.empty()) to += ", ";
    to += value;
  };
  const auto first = [](std::string& to, std::string_view value) {
    if (to.empty()) to = value;
  };
  for (const pb::handle& pair : pb::reinterpret_borrow<pb::object>(headers)) {
    const auto items = pb::reinterpret_steal<pb::object>(PySequence_Fast(pair.ptr(), "headers must hold pairs"));
    if (!items) throw pb::error_already_set();
    if (PySequence_Fast_GET_SIZE(items.ptr()) != 2) throw pb::type_error("headers must hold pairs");
    const std::string_view name = view_of(PySequence_Fast_GET_ITEM(items.ptr(), 0));
    const std::string_view value = view_of(PySequence_Fast_GET_ITEM(items.ptr(), 1));
    const auto is = [name](std::string_view other) { return http::equal_in_any_case(name, other); };
    if (is("cache-control")) joined(cache_control, value);
    if (is("vary")) joined(varies, value), has_vary = true;
    if (is("expires")) first(expires, value.empty() ? std::string_view("0") : value);
    if (is("date")) first(date, value);
    if (is("age")) first(age, value);
    if (is("last-modified")) first(last_modified, value);
    if (is("set-cookie") || is("set-cookie2")) set_cookie = true;
    if (is("content-range")) content_range = true;
  }
  http::Response response;
  response.status = status;
  response.set_cookie = set_cookie;
  response.content_range = content_range;
  response.cache_control = cache_control;
  response.expires = expires;
  response.date = date;
  response.age = age;
  response.last_modified = last_modified;
  response.vary = varies;
  if (vary != nullptr && has_vary) *vary = varies;
  return http::after(question.request.view(), response, route_, static_cast<http::Seconds>(std::time(nullptr)));
}

}  // namespace stillwarm::py
