// The Reader for Python: reads of the remote tier that are performed in C++. See remote_read.hpp.
//
// Thread rule: with the GIL; `read` and `get` release it while they wait.
// Refuses to know: what Python does with a read that is left to it.
#include <pybind11/stl.h>

#include "bindings/bind.hpp"
#include "bindings/remote_read.hpp"
#include "bindings/remote_request.hpp"

namespace stillwarm {
namespace {

namespace pb = pybind11;
using py::flight_of;
using py::Reader;

// What Python holds: the Reader, and the objects that it borrows from.
struct Held : Reader {
  pb::object tier_object, dictionaries_object, slowly_object, decode_object;
};

const LookUp& look_up_of(const std::shared_ptr<Request>& request, std::size_t i) {
  if (request->kind != Request::Kind::kLookUp) throw pb::type_error("expected a look-up");
  const auto& look = static_cast<const LookUp&>(*request);
  if (i >= look.found.size()) throw pb::index_error("no such key");
  return look;
}

pb::object taken(PyObject* result) {
  if (result == nullptr) throw pb::error_already_set();
  return pb::reinterpret_steal<pb::object>(result);
}

PyObject* get(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  const auto* const reader = static_cast<const std::shared_ptr<Held>*>(PyCapsule_GetPointer(self, nullptr));
  if (reader == nullptr) return nullptr;
  if (count != 3 || !PyObject_TypeCheck(args[0], py::cache_base_type) || !PyUnicode_CheckExact(args[1])) {
    PyErr_SetString(PyExc_TypeError, "get(cache, key, default)");
    return nullptr;
  }
  return py::read_direct(**reader, args[0], args[1], args[2]);
}

PyMethodDef get_method = {"get", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(get)), METH_FASTCALL,
                          "get(cache, key, default): what Cache.get asks where memory has nothing fresh."};

}  // namespace

void bind_reader(pb::module_& m) {
  pb::class_<Held, std::shared_ptr<Held>>(m, "Reader")
      .def(pb::init([](pb::object tier, pb::object dictionaries, std::string key_space, std::size_t max_value,
                       pb::object slowly, pb::object decode, int codec) {
        auto held = std::make_shared<Held>();
        held->tier = &tier.cast<RemoteTier&>();
        held->dictionaries = &dictionaries.cast<Dictionaries&>();
        held->key_space = std::move(key_space);
        held->max_value = max_value;
        held->slowly = slowly.ptr();
        held->decode = decode.is_none() ? nullptr : decode.ptr();
        held->codec = codec;
        held->tier_object = std::move(tier);
        held->dictionaries_object = std::move(dictionaries);
        held->slowly_object = std::move(slowly);
        held->decode_object = std::move(decode);
        return held;
      }))
      .def_property_readonly("calm", [](const Held& r) { return r.calm; })
      .def_property_readonly("ended", [](const Held& r) { return r.ended; })
      .def("end_calm",
           [](Held& r) {
             r.calm = false;
             ++r.ended;
           })
      // `ended`: as it was before the caller looked whether all is calm.
      .def("begin_calm", [](Held& r, std::uint64_t ended) { r.calm = ended == r.ended; })
      .def("take_served", [](Held& r) { return std::exchange(r.served, 0); })
      // A function of its own, which keeps the Reader: a bound method of pybind11's would cost more than all it does.
      .def_property_readonly("get",
                             [](const std::shared_ptr<Held>& r) {
                               const pb::capsule self(new std::shared_ptr<Held>(r), [](void* held) {
                                 delete static_cast<std::shared_ptr<Held>*>(held);
                               });
                               return taken(PyCFunction_New(&get_method, self.ptr()));
                             })
      // (value, None, None), or (MISSING, request, error): left to Python.
      .def("read",
           [](Held& r, pb::handle flight, std::uint32_t slot, std::string key, std::string type, pb::handle decode,
              int codec, std::string lease, std::string owner, Nanos lease_age) {
             py::PyFlight* const f = flight_of(flight);
             auto look = std::make_shared<LookUp>(slot);
             look->keys.push_back(std::move(key));
             look->types.push_back(std::move(type));
             look->lease = std::move(lease);
             look->owner = std::move(owner);
             look->lease_age = lease_age;
             std::optional<TierError> error;
             if (!py::perform(r, look, error)) throw pb::error_already_set();
             PyObject* value = *error ? Py_NewRef(py::missing) : py::land_found(r, f, *look, 0, {decode.ptr(), codec});
             if (value == nullptr) throw pb::error_already_set();
             if (value != py::missing) {
               ++r.served;
               return taken(Py_BuildValue("NOO", value, Py_None, Py_None));
             }
             auto result =
                 pb::make_tuple(pb::handle(value), std::static_pointer_cast<Request>(look), error_or_none(*error));
             Py_DECREF(value);
             return pb::object(std::move(result));
           })
      .def("begin",
           [](const Held& r, pb::handle cache, pb::handle key) {
             if (!PyObject_TypeCheck(cache.ptr(), py::cache_base_type) || !PyUnicode_CheckExact(key.ptr()))
               throw pb::type_error("begin(cache, key)");
             return taken(py::begin_direct(r, cache.ptr(), key.ptr()));
           })
      .def("begin_many",
           [](const Held&, pb::handle cache, pb::handle keys, bool count) {
             if (!PyObject_TypeCheck(cache.ptr(), py::cache_base_type) || !PyList_CheckExact(keys.ptr()))
               throw pb::type_error("begin_many(cache, keys, count)");
             return taken(py::begin_many(cache.ptr(), keys.ptr(), count));
           })
      .def("land_many",
           [](Held& r, const std::shared_ptr<Request>& request, pb::handle begun, pb::handle found) {
             if (!PyList_CheckExact(begun.ptr()) || !PyDict_CheckExact(found.ptr()))
               throw pb::type_error("land_many(request, begun, found)");
             const auto size = static_cast<std::size_t>(PyList_GET_SIZE(begun.ptr()));
             return taken(py::land_many(r, look_up_of(request, size == 0 ? 0 : size - 1), begun.ptr(), found.ptr()));
           })
      .def("landed", [](Held& r, pb::handle flight, const std::shared_ptr<Request>& request, std::size_t i,
                        pb::handle decode, int codec) {
        PyObject* const value = py::land_found(r, flight_of(flight), look_up_of(request, i), i, {decode.ptr(), codec});
        if (value != nullptr && value != py::missing) ++r.served;
        return taken(value);
      });
}

}  // namespace stillwarm
