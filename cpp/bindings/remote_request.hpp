// A request to a remote tier as Python holds it, and how Python waits for one.
//
// Thread rule: made and read with the GIL; `wait` releases it. Nothing that owns a Python reference lives in a frame
// that releases the GIL: at interpreter exit a daemon thread is unwound there (see cache_base.hpp). Refuses to know:
// which tier it is, and what is asked.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "core/remote/request_queue.hpp"

namespace stillwarm {

// (fault, state, message), or None: it went well.
pybind11::object error_or_none(const TierError& error);

// Performs the request on this thread or waits until somebody has, without the GIL; on the main thread in slices, so
// that signal handlers run. Throws what a signal handler raised: then a write goes on, and `echo` hears of its end.
TierError wait_for(RequestQueue& queue, const std::shared_ptr<Request>& request, const std::shared_ptr<Sink>& echo);

bool is_write(const Request& r) noexcept;

void bind_requests(pybind11::module_& m);

}  // namespace stillwarm
