// The type of cached functions: its construction, its life, and what the Python side asks of it. See cached_call.hpp.
#include "bindings/cached_call.hpp"

#include <structmember.h>

namespace stillwarm::py {
namespace {

// --- for the Python side -------------------------------------------------------------------------------------------

// args, kwargs -> a row; the vector that it borrows from is returned in `vector` (to be freed).
bool row_of(CachedCall* c, PyObject* args, PyObject* kwargs, KeyRow& row, PyObject**& vector, std::uint64_t& hash) {
  row.init();
  vector = nullptr;
  const Py_ssize_t nargs = PyTuple_GET_SIZE(args);
  const Py_ssize_t keywords = kwargs == nullptr || kwargs == Py_None ? 0 : PyDict_Size(kwargs);
  vector = static_cast<PyObject**>(PyMem_Malloc(static_cast<std::size_t>(nargs + keywords + 1) * sizeof(PyObject*)));
  if (vector == nullptr) {
    PyErr_NoMemory();
    return false;
  }
  for (Py_ssize_t i = 0; i < nargs; ++i) vector[i] = PyTuple_GET_ITEM(args, i);
  PyObject* names = nullptr;
  if (keywords > 0) {
    names = PyTuple_New(keywords);
    if (names == nullptr) return false;
    Py_ssize_t at = 0, k = 0;
    PyObject *name = nullptr, *value = nullptr;
    while (k < keywords && PyDict_Next(kwargs, &at, &name, &value)) {
      PyTuple_SET_ITEM(names, k, Py_NewRef(name));
      vector[nargs + k] = value;
      ++k;
    }
  }
  bool misfit = false;
  const bool made = make_row(c, vector, nargs, names, row, hash, misfit);
  Py_XDECREF(names);
  if (misfit) {
    PyObject* result = PyObject_Call(c->function, args, kwargs == Py_None ? nullptr : kwargs);
    Py_XDECREF(result);
    if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "the arguments do not fit the function's signature");
  }
  return made;
}

bool parse_args(PyObject* const* args, Py_ssize_t count, Py_ssize_t most) {
  if (count < 2 || count > most || !PyTuple_Check(args[0]) || !(args[1] == Py_None || PyDict_Check(args[1]))) {
    PyErr_SetString(PyExc_TypeError, "expected (args: tuple, kwargs: dict)");
    return false;
  }
  return true;
}

PyObject* call_begin(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  if (!parse_args(args, count, 4)) return nullptr;
  CachedCall* c = as_call(self);
  KeyRow row;
  PyObject** vector = nullptr;
  std::uint64_t hash = 0;
  PyObject* result = nullptr;
  const long away = count > 3 ? PyLong_AsLong(args[3]) : 0;
  if (away < 0) {
    if (PyErr_Occurred() == nullptr) PyErr_SetString(PyExc_ValueError, "asked: accepted: 0 to 2");
    return nullptr;
  }
  const auto asked = static_cast<Asked>(away);
  if (row_of(c, args[0], args[1], row, vector, hash)) {
    result = begin(as_cache(c->cache), probe_for(c, row.items, row.count, hash), count < 3 || args[2] == Py_True, false,
                   asked);
  }
  row.clear();
  PyMem_Free(vector);
  return result;
}

// _key(args, kwargs): the stored form of the key.
PyObject* call_key(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  if (!parse_args(args, count, 2)) return nullptr;
  KeyRow row;
  PyObject** vector = nullptr;
  std::uint64_t hash = 0;
  PyObject* key = nullptr;
  if (row_of(as_call(self), args[0], args[1], row, vector, hash)) key = own_key(row.items, row.count);
  row.clear();
  PyMem_Free(vector);
  return key;
}

PyObject* get_call_function(PyObject* self, void*) { return Py_NewRef(as_call(self)->function); }
PyObject* get_call_cache(PyObject* self, void*) { return Py_NewRef(as_call(self)->cache); }
PyObject* get_call_scope(PyObject* self, void*) { return PyLong_FromUnsignedLong(as_call(self)->scope); }
PyObject* get_call_names(PyObject* self, void*) {
  const Signature& s = *as_call(self)->signature;
  PyObject* names = PyList_New(0);
  for (Py_ssize_t i = 0; names != nullptr && i < s.parameters(); ++i) {
    if (!s.ignored[i] && PyList_Append(names, s.names[i]) != 0) Py_CLEAR(names);
  }
  return names;
}

// --- the type ------------------------------------------------------------------------------------------------------

// CachedCall(cache, function, scope, names, defaults, ignored, positional_only, positional, var_positional,
//            var_keyword, key, is_async, plain, direct)
PyObject* call_new(PyTypeObject* type, PyObject* args, PyObject*) {
  PyObject *cache = nullptr, *function = nullptr, *names = nullptr, *defaults = nullptr, *ignored = nullptr,
           *key = nullptr;
  unsigned int scope = 0;
  Py_ssize_t positional_only = 0, positional = 0;
  int var_positional = 0, var_keyword = 0, is_async = 0, plain = 0, direct = 0;
  if (!PyArg_ParseTuple(args, "O!OIO!O!O!nnppOppp", cache_base_type, &cache, &function, &scope, &PyTuple_Type, &names,
                        &PyTuple_Type, &defaults, &PyTuple_Type, &ignored, &positional_only, &positional,
                        &var_positional, &var_keyword, &key, &is_async, &plain, &direct)) {
    return nullptr;
  }
  PyFlow* flow = flow_of(as_cache(cache));
  if (flow == nullptr) return nullptr;
  const Py_ssize_t named = PyTuple_GET_SIZE(names);
  if (scope >= flow->scopes().size() || !flow->scopes()[scope].in_use || PyTuple_GET_SIZE(defaults) != named ||
      PyTuple_GET_SIZE(ignored) != named + 2 || positional_only < 0 || positional_only > positional ||
      positional > named) {
    PyErr_SetString(PyExc_ValueError, "CachedCall: no such scope, or the parts of the signature do not fit together");
    return nullptr;
  }
  for (Py_ssize_t i = 0; i < named; ++i) {
    if (!PyUnicode_Check(PyTuple_GET_ITEM(names, i))) {
      PyErr_SetString(PyExc_TypeError, "CachedCall: names of parameters are texts");
      return nullptr;
    }
  }
  PyObject* self = type->tp_alloc(type, 0);
  if (self == nullptr) return nullptr;
  CachedCall* c = as_call(self);
  c->vectorcall = call;
  c->function = Py_NewRef(function);
  c->cache = Py_NewRef(cache);
  c->key = key == Py_None ? nullptr : Py_NewRef(key);
  c->flow = flow;
  c->scope = scope;
  c->is_async = is_async != 0;
  c->plain = plain != 0;
  try {
    c->signature = new Signature;
    Signature& s = *c->signature;
    const auto parameters = static_cast<std::size_t>(named);
    s.names.reserve(parameters);
    s.defaults.reserve(parameters);
    for (Py_ssize_t i = 0; i < named; ++i) {
      PyObject* name = Py_NewRef(PyTuple_GET_ITEM(names, i));
      PyUnicode_InternInPlace(&name);
      s.names.push_back(name);
      PyObject* value = PyTuple_GET_ITEM(defaults, i);
      s.defaults.push_back(value == missing ? nullptr : Py_NewRef(value));
    }
    for (Py_ssize_t i = 0; i < named + 2; ++i) s.ignored.push_back(PyTuple_GET_ITEM(ignored, i) == Py_True);
    s.positional_only = positional_only;
    s.positional = positional;
    s.var_positional = var_positional != 0;
    s.var_keyword = var_keyword != 0;
    s.plain = !s.var_positional && !s.var_keyword;
    for (const char flag : s.ignored) s.plain = s.plain && flag == 0;
    s.count = 0;
    for (std::size_t i = 0; i < parameters; ++i) s.count += s.ignored[i] ? 0 : 1;
    s.count += (s.var_positional && !s.ignored[parameters]) + (s.var_keyword && !s.ignored[parameters + 1]);
    Scope& own = flow->scopes()[scope];
    own.single = c->key != nullptr || s.count == 1;
    c->stats = &own.stats;
    c->salt = flow->scopes()[own.key_scope].salt;
    c->arity = !direct ? -2 : s.plain && c->key == nullptr && s.positional == s.parameters() ? s.positional : -1;
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
    Py_DECREF(self);
    return nullptr;
  }
  return self;
}

int call_traverse(PyObject* self, visitproc visit, void* arg) {
  CachedCall* c = as_call(self);
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(c->function);
  Py_VISIT(c->cache);
  Py_VISIT(c->key);
  Py_VISIT(c->dict);
  if (c->signature != nullptr) {
    for (PyObject* value : c->signature->defaults) Py_VISIT(value);
  }
  return 0;
}

// The cache, the function and the scope stay until the end: a call may still come from a finalizer.
int call_clear(PyObject* self) {
  Py_CLEAR(as_call(self)->dict);
  return 0;
}

void call_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  CachedCall* c = as_call(self);
  if (c->weakrefs != nullptr) PyObject_ClearWeakRefs(self);
  Py_CLEAR(c->dict);
  Py_CLEAR(c->function);
  Py_CLEAR(c->key);
  if (c->signature != nullptr) {
    for (PyObject* name : c->signature->names) Py_XDECREF(name);
    for (PyObject* value : c->signature->defaults) Py_XDECREF(value);
    delete c->signature;
  }
  if (c->cache != nullptr && as_cache(c->cache)->flow != nullptr) {
    c->flow->retire(c->scope);
    release_dead(c->flow);
  }
  Py_CLEAR(c->cache);
  PyTypeObject* type = Py_TYPE(self);
  type->tp_free(self);
  Py_DECREF(type);
}

PyObject* call_descr_get(PyObject* self, PyObject* object, PyObject*) {
  return object == nullptr || object == Py_None ? Py_NewRef(self) : PyMethod_New(self, object);
}

PyObject* call_repr(PyObject* self) {
  PyObject* name = PyObject_GetAttrString(self, "__qualname__");
  if (name == nullptr) {
    PyErr_Clear();
    name = Py_NewRef(Py_None);
  }
  PyObject* text = PyUnicode_FromFormat("<cached %s%S at %p>", as_call(self)->is_async ? "async " : "", name, self);
  Py_DECREF(name);
  return text;
}

PyMethodDef call_methods[] = {{"_begin", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(call_begin)),
                               METH_FASTCALL, "_begin(args, kwargs, count=True): (step, value, flight)."},
                              {"_key", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(call_key)), METH_FASTCALL,
                               "_key(args, kwargs): the stored form of the key."},
                              {nullptr, nullptr, 0, nullptr}};

PyGetSetDef call_getset[] = {{"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, nullptr, nullptr},
                             {"_function", get_call_function, nullptr, nullptr, nullptr},
                             {"_cache", get_call_cache, nullptr, nullptr, nullptr},
                             {"_scope", get_call_scope, nullptr, nullptr, nullptr},
                             {"_names", get_call_names, nullptr, nullptr, nullptr},
                             {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyMemberDef call_members[] = {{"__vectorcalloffset__", T_PYSSIZET, offsetof(CachedCall, vectorcall), READONLY, nullptr},
                              {"__dictoffset__", T_PYSSIZET, offsetof(CachedCall, dict), READONLY, nullptr},
                              {"__weaklistoffset__", T_PYSSIZET, offsetof(CachedCall, weakrefs), READONLY, nullptr},
                              {nullptr, 0, 0, 0, nullptr}};

PyType_Slot call_slots[] = {{Py_tp_new, reinterpret_cast<void*>(call_new)},
                            {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
                            {Py_tp_descr_get, reinterpret_cast<void*>(call_descr_get)},
                            {Py_tp_repr, reinterpret_cast<void*>(call_repr)},
                            {Py_tp_methods, call_methods},
                            {Py_tp_getset, call_getset},
                            {Py_tp_members, call_members},
                            {Py_tp_traverse, reinterpret_cast<void*>(call_traverse)},
                            {Py_tp_clear, reinterpret_cast<void*>(call_clear)},
                            {Py_tp_dealloc, reinterpret_cast<void*>(call_dealloc)},
                            {0, nullptr}};

PyType_Spec call_spec = {
    "stillwarm._core.CachedCall", sizeof(CachedCall), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR, call_slots};

}  // namespace

bool add_cached_call(PyObject* module) {
  PyObject* type = PyType_FromSpec(&call_spec);
  const bool added = type != nullptr && PyModule_AddObjectRef(module, "CachedCall", type) == 0;
  Py_XDECREF(type);
  return added;
}

}  // namespace stillwarm::py
