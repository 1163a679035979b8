// The retry core for Python: policies, attempts, budgets, figures, classification.
//
// Thread rule: under the GIL, which is the lock that the budgets ask for. No Python code runs between a read and a
// write of a budget.
// Refuses to know: exceptions (retry.py gathers the facts) and waiting. Durations are ns; the time is Clock::now().
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bindings/bind.hpp"
#include "bindings/retried_call.hpp"
#include "core/base/clock.hpp"
#include "core/retry/attempt.hpp"
#include "core/retry/budget.hpp"
#include "core/retry/classify.hpp"
#include "core/retry/figures.hpp"

namespace stillwarm {

namespace pb = pybind11;

namespace {

std::string_view text_of(ErrorKind kind) noexcept {
  switch (kind) {
    case ErrorKind::kNotFound:
      return "not_found";
    case ErrorKind::kTransient:
      return "transient";
    case ErrorKind::kFatal:
      break;
  }
  return "fatal";
}

std::string_view classify_error(const std::vector<std::string_view>& mro, std::optional<std::string_view> sqlstate,
                                std::optional<int> error_number, std::optional<int> http_status, bool connection_lost) {
  return text_of(classify({mro, sqlstate, error_number, http_status, connection_lost}));
}

RetryPolicy make_policy(std::uint32_t retries, Nanos base, Nanos cap, double factor, double below, double above,
                        std::optional<Nanos> deadline, Nanos max_retry_after, std::optional<std::string_view> budget,
                        std::string_view name) {
  return {{base, cap, factor, below, above},
          retries,
          deadline.value_or(kForever),
          max_retry_after,
          budget ? &Budgets::of_process().named(*budget) : nullptr,
          &RetryNames::of_process().named(name)};
}

// The state of a call that begins now, or that began earlier and was counted then.
Attempt start(const RetryPolicy& policy, std::optional<Nanos> began) {
  if (!began) policy.begun();
  return {policy, began.value_or(Clock::now())};
}

// {name: (calls, succeeded, recovered, failures, retries, ns waited, {reason: calls given up})}
pb::dict retry_figures() {
  pb::dict all;
  for (const auto& [name, f] : RetryNames::of_process().all()) {
    pb::dict given_up;
    for (std::size_t i = 0; i < f.given_up.size(); ++i) {
      if (f.given_up[i] != 0) given_up[pb::str(text_of(static_cast<Stop>(i)))] = f.given_up[i];
    }
    all[pb::str(name)] = pb::make_tuple(f.calls, f.succeeded, f.recovered, f.failures, f.retries, f.waited, given_up);
  }
  return all;
}

// {name: (left, capacity)}, in thousandths of a token
pb::dict budgets() {
  pb::dict all;
  for (const auto& [name, budget] : Budgets::of_process().all()) {
    all[pb::str(name)] = pb::make_tuple(budget.left(), budget.capacity());
  }
  return all;
}

std::optional<Nanos> failed(Attempt& attempt, bool transient, std::optional<Nanos> retry_after, double random) {
  return attempt.failed(transient ? ErrorKind::kTransient : ErrorKind::kFatal, retry_after, Clock::now(), random);
}

}  // namespace

void bind_retry(pb::module_& m) {
  m.def("classify_error", &classify_error, pb::arg("mro"), pb::arg("sqlstate"), pb::arg("error_number"),
        pb::arg("http_status"), pb::arg("connection_lost"),
        "\"fatal\", \"not_found\" or \"transient\", by \"module.qualname\" of each class, most derived first.");

  pb::class_<RetryPolicy>(m, "RetryPolicy", "The figures of a retry policy; durations in ns.")
      .def(pb::init(&make_policy), pb::kw_only(), pb::arg("retries"), pb::arg("base"), pb::arg("cap"),
           pb::arg("factor"), pb::arg("below"), pb::arg("above"), pb::arg("deadline"), pb::arg("max_retry_after"),
           pb::arg("budget"), pb::arg("name"))
      .def("start", &start, pb::arg("began") = pb::none(),
           "The state of one call; its deadline counts from here, or from `began`, when it was counted.");

  pb::class_<Attempt>(m, "RetryAttempt", "The state of one retried call.")
      .def("failed", &failed, pb::arg("transient"), pb::arg("retry_after"), pb::arg("random"), pb::pos_only(),
           "ns to wait before the next attempt, or None: stop. `retry_after` in ns or None, `random` in [0, 1).")
      .def("failed_inside", &Attempt::failed_inside, "An inner retry gave up on it: stops.")
      .def("succeeded", &Attempt::succeeded)
      .def_property_readonly("failures", &Attempt::failures)
      .def_property_readonly(
          "elapsed", [](const Attempt& attempt) { return attempt.elapsed(Clock::now()); }, "ns since start().")
      .def_property_readonly(
          "stop",
          [](const Attempt& attempt) -> std::optional<std::string_view> {
            const auto stop = attempt.stop();
            return stop ? std::optional(text_of(*stop)) : std::nullopt;
          },
          "Why it stopped, or None.");

  m.def("retry_tick", &py::next_tick, "The next number of the order in which attempts began and errors were given up.");
  m.def("retry_figures", &retry_figures, "By name: see RetryFigures.");
  m.def(
      "reset_retry_figures", [] { RetryNames::of_process().each([](RetryFigures& figures) { figures = {}; }); },
      "Zero: for tests.");
  m.def(
      "set_retry_hooks",
      [](const pb::object& recover, const pb::object& arecover, const pb::object& raise_it) {
        py::retry_hooks = {recover.inc_ref().ptr(), arecover.inc_ref().ptr(), raise_it.inc_ref().ptr()};
      },
      "What goes on after a first attempt failed; see RetryHooks.");

  m.def(
      "define_budget",
      [](std::string_view name, std::uint32_t capacity, std::uint32_t refund) {
        Budgets::of_process().named(name).define(capacity, refund);
      },
      pb::arg("name"), pb::arg("capacity"), pb::arg("refund"), pb::pos_only(), "Both in thousandths of a token.");
  m.def("budgets", &budgets, "By name: thousandths of a token that are left, and those that it holds at most.");
  m.def(
      "refill_budgets", [] { Budgets::of_process().each([](Budget& budget) { budget.refill(); }); },
      "Every budget full again: for tests.");
}

}  // namespace stillwarm
