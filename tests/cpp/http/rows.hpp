// What the tables of the policy's tests share: a GET, a 200 that may be stored, routes, and the names of outcomes.
//
// Thread rule: plain data.
// Refuses to know: what any test wants to show.
#pragma once

#include <gtest/gtest.h>

#include <ostream>
#include <string>

#include "core/http/policy.hpp"
#include "core/http/status.hpp"

namespace stillwarm::http {

inline constexpr Seconds kWall = 1'750'000'000;  // Sun, 15 Jun 2025 15:06:40 GMT
inline constexpr std::string_view kWallDate = "Sun, 15 Jun 2025 15:06:40 GMT";

inline std::ostream& operator<<(std::ostream& to, Why why) { return to << "Why " << text_of(why); }
inline std::ostream& operator<<(std::ostream& to, Forward forward) { return to << "Forward " << text_of(forward); }
inline std::ostream& operator<<(std::ostream& to, Use use) { return to << "Use " << static_cast<int>(use); }

inline Request get() {
  Request request;
  request.method = "GET";
  return request;
}

// Changed by `change`, so that a row of a table says only what it is about.
template <class Change>
Request get(Change change) {
  Request request = get();
  change(request);
  return request;
}

inline Response ok(std::string_view cache_control = "max-age=60") {
  Response response;
  response.cache_control = cache_control;
  return response;
}

template <class Change>
Response changed(Response response, Change change) {
  change(response);
  return response;
}

template <class Change>
Route route(Change change) {
  Route result;
  change(result);
  return result;
}

}  // namespace stillwarm::http
