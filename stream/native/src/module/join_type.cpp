#include <algorithm>
#include <memory>

#include "module/batch.h"
#include "join/operator.h"

namespace prectr {
namespace {

Join& self_of(PyObject* self) { return *reinterpret_cast<Holder<Join>*>(self)->held; }

PyObject* create(PyTypeObject* type, PyObject* args, PyObject*) {
  return allocate<Join>(type, [&] {
    JoinSettings settings;
    PyObject* actions;
    Py_ssize_t history_clicks;
    long long window, retention, time_to_live, lateness, skew, turns, records;
    parse(args, "LLLnOLLLL", &window, &retention, &time_to_live, &history_clicks, &actions, &lateness, &skew, &turns,
          &records);
    settings.window = window, settings.retention = retention, settings.time_to_live = time_to_live;
    settings.history_clicks = history_clicks;
    settings.clock = {lateness, skew, turns, records};
    Ref names = checked(PySequence_Tuple(actions));
    for (Py_ssize_t i = 0; i < PyTuple_Size(names.get()); i++)
      settings.click_actions.emplace(view_of(PyTuple_GetItem(names.get(), i)));
    return std::make_unique<Join>(std::move(settings));
  });
}

int64_t OutcomeCounts::* const kOutcomes[] = {
    &OutcomeCounts::pages, &OutcomeCounts::emitted, &OutcomeCounts::open, &OutcomeCounts::empty,
    &OutcomeCounts::page_duplicate, &OutcomeCounts::page_dead_letter, &OutcomeCounts::clicks, &OutcomeCounts::joined,
    &OutcomeCounts::duplicate, &OutcomeCounts::late, &OutcomeCounts::orphan, &OutcomeCounts::foreign,
    &OutcomeCounts::waiting, &OutcomeCounts::other_action, &OutcomeCounts::click_dead_letter,
    &OutcomeCounts::unreadable};

PyObject* restore(PyObject* self, PyObject* args) {
  return guarded([&] {
    const char* clock;
    Py_ssize_t clock_size;
    long long next_id;
    PyObject *counts, *pages, *clicks, *future;
    parse(args, "y#LOOOO", &clock, &clock_size, &next_id, &counts, &pages, &clicks, &future);
    Join& join = self_of(self);
    OutcomeCounts outcomes;
    Ref numbers = checked(PySequence_Tuple(counts));
    if (PyTuple_Size(numbers.get()) != std::ssize(kOutcomes)) throw std::invalid_argument("other outcomes");
    for (size_t i = 0; i < std::size(kOutcomes); i++) {
      outcomes.*kOutcomes[i] = PyLong_AsLongLong(PyTuple_GetItem(numbers.get(), i));
      if (PyErr_Occurred()) throw Raised();
    }
    join.restore_meta(View(clock, clock_size), next_id, outcomes);
    for_each(pages, [&](PyObject* entry) {
      const char *key, *value;
      Py_ssize_t key_size, value_size;
      parse(entry, "y#y#", &key, &key_size, &value, &value_size);
      join.restore_page(View(key, key_size), View(value, value_size));
    });
    for_each(clicks, [&](PyObject* value) { join.restore_click(view_of(value)); });
    for_each(future, [&](PyObject* value) { join.restore_future(view_of(value)); });
    return none();
  });
}

PyObject* unloaded(PyObject* self, PyObject*) {
  return guarded([&] { return list_of(self_of(self).unloaded(), bytes_of); });
}

PyObject* odd_queries(PyObject* self, PyObject*) {
  return guarded([&] {
    return list_of(self_of(self).odd_queries(), [](const std::pair<int64_t, std::string>& page) {
      std::vector<Ref> fields;
      fields.push_back(integer_of(page.first)), fields.push_back(text_of(page.second));
      return tuple_of(std::move(fields));
    });
  });
}

PyObject* set_query_key(PyObject* self, PyObject* args) {
  return guarded([&] {
    long long id;
    const char* key;
    Py_ssize_t size;
    parse(args, "Ls#", &id, &key, &size);
    self_of(self).set_query_key(id, View(key, size));
    return none();
  });
}

PyObject* load(PyObject* self, PyObject* args) {
  return guarded([&] {
    PyObject *ids, *values;
    int is_accessed;
    parse(args, "OOp", &ids, &values, &is_accessed);
    Ref entries = checked(PySequence_Tuple(values));
    Py_ssize_t index = 0;
    for_each(ids, [&](PyObject* id) {
      PyObject* value = PyTuple_GetItem(entries.get(), index++);
      if (!value) throw Raised();
      self_of(self).load_user(view_of(id), value == Py_None ? View() : view_of(value), is_accessed);
    });
    return none();
  });
}

bool is_of(const Batch& batch, size_t index, int partition) {
  return batch.partitions.empty() || batch.partitions[index] == static_cast<uint32_t>(partition);
}

PyObject* missing(PyObject* self, PyObject* args) {
  return guarded([&] {
    PyObject* object;
    int partition;
    parse(args, "Oi", &object, &partition);
    const Batch& batch = batch_of(object);
    std::vector<View> users;
    for (size_t i = 0; i < batch.events.size(); i++) {
      const Event& event = batch.events[i];
      if (event.is_valid() && is_of(batch, i, partition) && !self_of(self).is_resident(event.user_id))
        users.push_back(event.user_id);
    }
    std::sort(users.begin(), users.end());
    users.erase(std::unique(users.begin(), users.end()), users.end());
    return list_of(users, bytes_of);
  });
}

Ref rejected_of(const Rejected& rejected) {
  std::vector<Ref> fields;
  if (rejected.kind == Rejected::kFuture) {
    fields.push_back(bytes_of(rejected.value)), fields.push_back(integer_of(rejected.offset));
    fields.push_back(integer_of(rejected.ts)), fields.push_back(integer_of(rejected.lead));
  } else {
    fields.push_back(integer_of(static_cast<int64_t>(rejected.index)));
    if (rejected.kind == Rejected::kConflict) {
      fields.push_back(rejected.is_known ? bytes_of(rejected.known) : none());
      fields.push_back(bytes_of(rejected.page));
    }
  }
  return tuple_of(std::move(fields));
}

Ref take_outputs(Join& join) {
  std::vector<std::string> joined = std::exchange(join.joined, {});
  std::vector<Rejected> rejected = std::exchange(join.rejected, {});
  std::vector<Ref> outputs;
  outputs.push_back(list_of(joined, bytes_of)), outputs.push_back(list_of(rejected, rejected_of));
  return tuple_of(std::move(outputs));
}

PyObject* process(PyObject* self, PyObject* args) {
  return guarded([&] {
    PyObject* object;
    int partition;
    parse(args, "Oi", &object, &partition);
    Join& join = self_of(self);
    Batch& batch = batch_of(object);
    {
      WithoutGil released;
      for (size_t i = 0; i < batch.events.size(); i++)
        if (is_of(batch, i, partition)) join.process(batch.events[i], i, batch.values[i], batch.offsets[i]);
    }
    return take_outputs(join);
  });
}

PyObject* flush(PyObject* self, PyObject*) {
  return guarded([&] {
    Join& join = self_of(self);
    {
      WithoutGil released;
      join.flush();
    }
    return take_outputs(join);
  });
}

PyObject* changes(PyObject* self, PyObject*) {
  return guarded([&] {
    Ref dict = checked(PyDict_New());
    self_of(self).drain([&](View key, const std::string* value) { put_change(dict, key, value); });
    return dict;
  });
}

PyObject* clock(PyObject* self, PyObject*) {
  return guarded([&] {
    std::string state;
    Writer out(state);
    self_of(self).write_clock(out);
    return bytes_of(state);
  });
}

PyObject* outcomes(PyObject* self, PyObject*) {
  return guarded([&] {
    std::vector<Ref> counts;
    for (auto count : kOutcomes) counts.push_back(integer_of(self_of(self).outcomes.*count));
    return tuple_of(std::move(counts));
  });
}

template <auto Method>
PyObject* number(PyObject* self, PyObject*) {
  return guarded([&] { return integer_of(static_cast<int64_t>((self_of(self).*Method)())); });
}

PyObject* future_events(PyObject* self, PyObject*) {
  return guarded([&] {
    auto [count, largest] = self_of(self).future_events();
    return list_of(std::array{count, largest}, integer_of);
  });
}

PyObject* resident(PyObject* self, PyObject*) {
  return guarded([&] {
    return list_of(self_of(self).resident(), [](size_t count) { return integer_of(static_cast<int64_t>(count)); });
  });
}

}  // namespace

PyObject* make_join_type(PyObject* module) {
  static PyMethodDef methods[] = {
      {"restore", restore, METH_VARARGS, "Restore the clock, the counts, the pending pages and clicks, the future events."},
      {"unloaded", unloaded, METH_NOARGS, "Users of what was restored whose entries are to be loaded."},
      {"odd_queries", odd_queries, METH_NOARGS, "Restored pages whose query is to be normalised in Python."},
      {"set_query_key", set_query_key, METH_VARARGS, "Set the normalised query of a restored page."},
      {"missing", missing, METH_VARARGS, "Users of a batch who are to be loaded, sorted."},
      {"load", load, METH_VARARGS, "Load the entries of users, None for a new one."},
      {"process", process, METH_VARARGS, "Process the records of a partition; return joined pages and rejected records."},
      {"flush", flush, METH_NOARGS, "End the log: close every page."},
      {"changes", changes, METH_NOARGS, "Return the changes of the store but for the task's own entry."},
      {"clock", clock, METH_NOARGS, "Return the clock's state as MessagePack."},
      {"outcomes", outcomes, METH_NOARGS, "Return the outcome counts."},
      {"watermark", number<&Join::watermark>, METH_NOARGS, nullptr},
      {"next_close", number<&Join::next_close>, METH_NOARGS, nullptr},
      {"next_id", number<&Join::next_id>, METH_NOARGS, nullptr},
      {"future_events", future_events, METH_NOARGS, "How many future events are ahead now, and by how much at most."},
      {"resident", resident, METH_NOARGS, "Number of users, pending pages, pending clicks and future events in memory."},
      {nullptr, nullptr, 0, nullptr}};
  static PyType_Slot slots[] = {{Py_tp_new, reinterpret_cast<void*>(create)},
                                {Py_tp_dealloc, reinterpret_cast<void*>(deallocate<Join>)},
                                {Py_tp_methods, methods},
                                {0, nullptr}};
  static PyType_Spec spec = {"prectr.stream.native.core.Join", sizeof(Holder<Join>), 0, Py_TPFLAGS_DEFAULT, slots};
  return PyType_FromModuleAndSpec(module, &spec, nullptr);
}

}  // namespace prectr
