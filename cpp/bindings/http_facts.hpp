// A request of WSGI or ASGI as facts for the HTTP policy, and the key of its URI.
//
// Thread rule: with the GIL. Nothing here runs Python code: environ and scope are exact dicts, lists, tuples, str,
// bytes. Refuses to know: what the policy makes of the facts, and what is stored.
//
// The key is ASCII and injective: `cache:{type}:GET:{scheme}://{host}{path}?{query}`, in which every byte that is not
// printable, and "~", is percent-escaped; the middleware's type ends with ":app". What else a route's key depends on
// follows after a "~".
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <string>
#include <string_view>
#include <vector>

#include "core/http/facts.hpp"

namespace stillwarm::py {

// The request's own copies: the app may change its environ while it answers.
struct OwnedRequest {
  std::string method, cache_control, pragma, if_none_match, if_modified_since, if_match, if_unmodified_since, range,
      if_range;
  bool authorization = false;
  bool cookie = false;
  bool body = false;
  bool upgrade = false;

  http::Request view() const noexcept;
};

struct FrontOptions {
  std::string prefix;                        // "cache:{type}:"
  std::vector<std::string> ignored_cookies;  // names; a "*" at the end stands for any rest
  std::size_t max_key = 2048;
  bool asgi = false;
};

// Fills `request` and appends the URI's part of the key to `key`. False with an exception: not a request.
bool read_wsgi(PyObject* environ, const FrontOptions& options, OwnedRequest& request, std::string& key);
bool read_asgi(PyObject* scope, const FrontOptions& options, OwnedRequest& request, std::string& key);

// "name=value\n" of each named header, normalised; what Vary compares. False with an exception.
bool read_variant(PyObject* raw, bool asgi, const std::vector<std::string>& names, std::string& text);

}  // namespace stillwarm::py
