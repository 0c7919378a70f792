// A batch of records for Python: decoded here, and what is unusual filled in from there.
#pragma once

#include "events/event.h"
#include "module/python.h"

namespace prectr {

struct Batch {
  Decoder decoder;
  Ref lines;  // a tuple, which keeps the bytes that the events refer to
  std::vector<View> values;
  std::vector<int64_t> offsets;
  std::vector<Event> events;
  std::vector<uint32_t> partitions;  // empty before a split
};

// The type `EventBatch`, made once by the module.
PyObject* make_batch_type(PyObject* module);
PyObject* make_join_type(PyObject* module);
PyObject* make_aggregate_type(PyObject* module);

Batch& batch_of(PyObject* object);

// An object that holds a C++ one.
template <typename Held>
struct Holder {
  PyObject_HEAD
  Held* held;
};

template <typename Held>
void deallocate(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  delete reinterpret_cast<Holder<Held>*>(self)->held;
  auto* free = reinterpret_cast<freefunc>(PyType_GetSlot(type, Py_tp_free));
  free(self);
  Py_DECREF(type);
}

template <typename Held, typename Make>
PyObject* allocate(PyTypeObject* type, Make make) {
  return guarded([&] {
    auto* alloc = reinterpret_cast<allocfunc>(PyType_GetSlot(type, Py_tp_alloc));
    auto held = make();
    Ref self = checked(alloc(type, 0));
    reinterpret_cast<Holder<Held>*>(self.get())->held = held.release();
    return self;
  });
}

}  // namespace prectr
