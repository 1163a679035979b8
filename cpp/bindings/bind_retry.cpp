// The retry core for Python: policies, attempts, budgets, classification.
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
#include "core/base/clock.hpp"
#include "core/retry/attempt.hpp"
#include "core/retry/budget.hpp"
#include "core/retry/classify.hpp"

namespace py = pybind11;

namespace stillwarm {
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
                        std::optional<Nanos> deadline, Nanos max_retry_after, std::optional<std::string_view> budget) {
  return {{base, cap, factor, below, above},
          retries,
          deadline.value_or(kForever),
          max_retry_after,
          budget ? &Budgets::of_process().named(*budget) : nullptr};
}

std::optional<Nanos> failed(Attempt& attempt, bool transient, std::optional<Nanos> retry_after, double random) {
  return attempt.failed(transient ? ErrorKind::kTransient : ErrorKind::kFatal, retry_after, Clock::now(), random);
}

}  // namespace

void bind_retry(py::module_& m) {
  m.def("classify_error", &classify_error, py::arg("mro"), py::arg("sqlstate"), py::arg("error_number"),
        py::arg("http_status"), py::arg("connection_lost"),
        "\"fatal\", \"not_found\" or \"transient\", by \"module.qualname\" of each class, most derived first.");

  py::class_<RetryPolicy>(m, "RetryPolicy", "The figures of a retry policy; durations in ns.")
      .def(py::init(&make_policy), py::kw_only(), py::arg("retries"), py::arg("base"), py::arg("cap"),
           py::arg("factor"), py::arg("below"), py::arg("above"), py::arg("deadline"), py::arg("max_retry_after"),
           py::arg("budget"))
      .def(
          "start", [](const RetryPolicy& policy) { return Attempt(policy, Clock::now()); },
          "The state of one call; its deadline counts from here.");

  py::class_<Attempt>(m, "RetryAttempt", "The state of one retried call.")
      .def("failed", &failed, py::arg("transient"), py::arg("retry_after"), py::arg("random"), py::pos_only(),
           "ns to wait before the next attempt, or None: stop. `retry_after` in ns or None, `random` in [0, 1).")
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

  m.def(
      "define_budget",
      [](std::string_view name, std::uint32_t capacity, std::uint32_t refund) {
        Budgets::of_process().named(name).define(capacity, refund);
      },
      py::arg("name"), py::arg("capacity"), py::arg("refund"), py::pos_only(), "Both in thousandths of a token.");
  m.def(
      "budget_left", [](std::string_view name) { return Budgets::of_process().named(name).left(); }, py::arg("name"),
      py::pos_only(), "Thousandths of a token that are left in the budget of that name.");
  m.def(
      "refill_budgets", [] { Budgets::of_process().refill(); }, "Every budget full again: for tests.");
}

}  // namespace stillwarm
