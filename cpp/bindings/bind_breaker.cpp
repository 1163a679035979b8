// The circuit breaker for Python, and the calls that it lets through.
//
// Thread rule: under the GIL, which is the owner's lock that a breaker asks for. No Python code runs in here.
// Refuses to know: which errors are failures, and who is told of a turn: breaker.py. Durations are ns; the time is
// Clock::now().
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "bindings/bind.hpp"
#include "core/base/breaker_call.hpp"
#include "core/base/clock.hpp"

namespace pb = pybind11;

namespace stillwarm {
namespace {

std::optional<std::string_view> text_of(Turn turn) noexcept {
  switch (turn) {
    case Turn::kOpened:
      return "opened";
    case Turn::kClosed:
      return "closed";
    case Turn::kUnchanged:
      break;
  }
  return std::nullopt;
}

std::shared_ptr<CircuitBreaker> make_breaker(std::uint32_t consecutive, double share, std::uint32_t least_calls,
                                             Nanos window, Nanos open_for, Nanos open_most) {
  return std::make_shared<CircuitBreaker>(BreakerOptions{.consecutive = consecutive,
                                                         .share = share,
                                                         .least_calls = least_calls,
                                                         .window = window,
                                                         .open_for = open_for,
                                                         .open_most = open_most,
                                                         .probe_most = open_most});
}

}  // namespace

void bind_breaker(pb::module_& m) {
  pb::class_<BreakerCall>(m, "BreakerCall", "A call that was let through; it reports once. Dropped, it was abandoned.")
      .def(
          "succeeded", [](BreakerCall& call) { return text_of(call.succeeded(Clock::now())); },
          "\"opened\" or \"closed\", if that is what it did to the circuit.")
      .def(
          "failed", [](BreakerCall& call) { return text_of(call.failed(Clock::now())); }, "Likewise.")
      .def("abandoned", &BreakerCall::abandoned)
      .def("pass_on", &BreakerCall::pass_on, "It, in the hands of a call inside; None if it is not held.")
      .def_property_readonly("held", &BreakerCall::held, "Neither reported nor passed on.");

  pb::class_<CircuitBreaker, std::shared_ptr<CircuitBreaker>>(m, "Breaker", "A circuit breaker; durations in ns.")
      .def(pb::init(&make_breaker), pb::kw_only(), pb::arg("consecutive"), pb::arg("share"), pb::arg("least_calls"),
           pb::arg("window"), pb::arg("open_for"), pb::arg("open_most"))
      .def(
          "allow",
          [](const std::shared_ptr<CircuitBreaker>& breaker) { return BreakerCall::begin(breaker, Clock::now()); },
          "The call, or None: refused.")
      .def("reset", &CircuitBreaker::reset)
      .def_property_readonly(
          "state", [](const CircuitBreaker& breaker) { return stillwarm::text_of(breaker.state(Clock::now())); },
          "\"closed\", \"open\" or \"half-open\".")
      .def_property_readonly(
          "retry_in", [](const CircuitBreaker& breaker) { return breaker.retry_in(Clock::now()); },
          "ns until a call may go.")
      .def_property_readonly("opened", &CircuitBreaker::opened)
      .def_property_readonly("refused", &CircuitBreaker::refused)
      .def_property_readonly("failures_in_a_row", &CircuitBreaker::failures_in_a_row)
      .def_property_readonly("calls_in_window",
                             [](const CircuitBreaker& breaker) { return breaker.calls_in_window(Clock::now()); })
      .def_property_readonly("failures_in_window",
                             [](const CircuitBreaker& breaker) { return breaker.failures_in_window(Clock::now()); });
}

}  // namespace stillwarm
