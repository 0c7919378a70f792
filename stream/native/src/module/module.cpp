// The module `prectr.stream.native.core`. Its types are described in `core.pyi`.
#include "module/batch.h"

namespace {

int fill(PyObject* module) {
  prectr::Ref batch(prectr::make_batch_type(module)), join(prectr::make_join_type(module)),
      aggregate(prectr::make_aggregate_type(module));
  if (!batch.get() || !join.get() || !aggregate.get()) return -1;
  return PyModule_AddObjectRef(module, "EventBatch", batch.get()) || PyModule_AddObjectRef(module, "Join", join.get())
                 || PyModule_AddObjectRef(module, "Aggregate", aggregate.get())
                 || PyModule_AddStringConstant(module, "SOURCES", PRECTR_SOURCES)
             ? -1
             : 0;
}

PyModuleDef_Slot slots[] = {{Py_mod_exec, reinterpret_cast<void*>(fill)}, {0, nullptr}};
PyModuleDef definition = {PyModuleDef_HEAD_INIT, "core", "The stages `join` and `aggregate` in C++.", 0, nullptr, slots, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit_core() { return PyModuleDef_Init(&definition); }
