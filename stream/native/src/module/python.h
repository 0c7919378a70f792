// Python's C API, only as much as is stable from 3.11 on, and what keeps references and exceptions in order.
#pragma once

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "codec/msgpack.h"

namespace prectr {

// Python has raised an exception already.
struct Raised : std::exception {};

class Ref {
 public:
  explicit Ref(PyObject* object = nullptr) : object_(object) {}
  Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Ref& operator=(Ref&& other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Ref() { Py_XDECREF(object_); }

  PyObject* get() const { return object_; }
  PyObject* release() { return std::exchange(object_, nullptr); }

 private:
  PyObject* object_;
};

// Releases the interpreter's lock while it lives.
class WithoutGil {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  ~WithoutGil() { PyEval_RestoreThread(state_); }
  WithoutGil(const WithoutGil&) = delete;

 private:
  PyThreadState* state_;
};

inline Ref checked(PyObject* object) {
  if (!object) throw Raised();
  return Ref(object);
}
inline Ref bytes_of(View bytes) { return checked(PyBytes_FromStringAndSize(bytes.data(), bytes.size())); }
inline Ref integer_of(int64_t value) { return checked(PyLong_FromLongLong(value)); }
inline Ref text_of(View text) {
  Ref decoded(PyUnicode_DecodeUTF8(text.data(), text.size(), nullptr));
  if (decoded.get()) return decoded;
  PyErr_Clear();
  throw Damaged("a text is not UTF-8");
}
inline View view_of(PyObject* bytes) {
  char* data;
  Py_ssize_t size;
  if (PyBytes_AsStringAndSize(bytes, &data, &size)) throw Raised();
  return {data, static_cast<size_t>(size)};
}
inline void append(const Ref& list, Ref item) {
  if (PyList_Append(list.get(), item.get())) throw Raised();
}
inline Ref tuple_of(std::vector<Ref> items) {
  Ref tuple = checked(PyTuple_New(items.size()));
  for (size_t i = 0; i < items.size(); i++) PyTuple_SetItem(tuple.get(), i, items[i].release());
  return tuple;
}
// A list of `function(item)`.
template <typename Items, typename Function>
Ref list_of(const Items& items, Function function) {
  Ref list = checked(PyList_New(0));
  for (const auto& item : items) append(list, function(item));
  return list;
}
template <typename... Targets>
void parse(PyObject* args, const char* format, Targets... targets) {
  if (!PyArg_ParseTuple(args, format, targets...)) throw Raised();
}

// Raises an error of `prectr.state.errors`.
inline void raise_error(const char* name, const std::string& message) {
  Ref module(PyImport_ImportModule("prectr.state.errors"));
  Ref type(module.get() ? PyObject_GetAttrString(module.get(), name) : nullptr);
  if (type.get()) PyErr_SetString(type.get(), message.c_str());
}

// Calls a function that returns a Ref; no exception of C++ leaves it but as a PrectrError.
template <typename Function>
PyObject* guarded(Function function) noexcept {
  try {
    return function().release();
  } catch (const Raised&) {
  } catch (const Damaged& error) {
    raise_error("StateError", std::string("a record of the state is damaged: ") + error.what());
  } catch (const std::exception& error) {
    raise_error("PrectrError", std::string("the native core failed: ") + error.what());
  } catch (...) {
    raise_error("PrectrError", "the native core failed");
  }
  return nullptr;
}
inline Ref none() { return Ref(Py_NewRef(Py_None)); }

template <typename Function>
void for_each(PyObject* iterable, Function function) {
  Ref items = checked(PySequence_Tuple(iterable));
  for (Py_ssize_t i = 0; i < PyTuple_Size(items.get()); i++) function(PyTuple_GetItem(items.get(), i));
}
// A change of the store; `value` is null for a deletion.
inline void put_change(const Ref& changes, View key, const std::string* value) {
  Ref stored = value ? bytes_of(*value) : none();
  if (PyDict_SetItem(changes.get(), bytes_of(key).get(), stored.get())) throw Raised();
}

}  // namespace prectr
