#include <memory>

#include "module/batch.h"

namespace prectr {
namespace {

PyTypeObject* batch_type = nullptr;

Batch& self_of(PyObject* self) { return *reinterpret_cast<Holder<Batch>*>(self)->held; }

Event& event_at(Batch& batch, Py_ssize_t index) {
  if (index < 0 || static_cast<size_t>(index) >= batch.events.size()) throw std::out_of_range("no such record");
  return batch.events[index];
}

void add_query_key(Event& event) {
  if (event.kind != Event::kPage || !is_ascii(event.query)) return;
  event.query_key = ascii_query_key(event.query);
  event.has_query_key = true;
}

std::unique_ptr<Batch> decode(PyObject* args) {
  PyObject* lines;
  Py_buffer offsets;
  parse(args, "Oy*", &lines, &offsets);
  auto batch = std::make_unique<Batch>();
  const auto* first = static_cast<const int64_t*>(offsets.buf);
  batch->offsets.assign(first, first + offsets.len / sizeof(int64_t));
  PyBuffer_Release(&offsets);
  batch->lines = checked(PySequence_Tuple(lines));
  Py_ssize_t size = PyTuple_Size(batch->lines.get());
  if (static_cast<size_t>(size) != batch->offsets.size()) throw std::invalid_argument("an offset for each line");
  for (Py_ssize_t i = 0; i < size; i++) batch->values.push_back(view_of(PyTuple_GetItem(batch->lines.get(), i)));
  batch->events.resize(size);
  WithoutGil released;
  for (Py_ssize_t i = 0; i < size; i++) {
    batch->decoder.decode(batch->values[i], batch->events[i]);
    add_query_key(batch->events[i]);
  }
  return batch;
}

PyObject* create(PyTypeObject* type, PyObject* args, PyObject*) {
  return allocate<Batch>(type, [&] { return decode(args); });
}

template <typename Wanted>
Ref indexes_of(Batch& batch, Wanted wanted) {
  Ref found = checked(PyList_New(0));
  for (size_t i = 0; i < batch.events.size(); i++)
    if (wanted(batch.events[i])) append(found, integer_of(static_cast<int64_t>(i)));
  return found;
}

PyObject* unsure(PyObject* self, PyObject*) {
  return guarded([&] { return indexes_of(self_of(self), [](Event& event) { return event.kind == Event::kUnsure; }); });
}

PyObject* put_event(PyObject* self, PyObject* args) {
  return guarded([&] {
    Py_ssize_t index;
    const char* data;
    Py_ssize_t size;
    parse(args, "ny#", &index, &data, &size);
    Batch& batch = self_of(self);
    Event& event = event_at(batch, index);
    event = Event();
    read_event(batch.decoder.keep(View(data, size)), event);
    event.has_user = true;
    add_query_key(event);
    return none();
  });
}

PyObject* put_invalid(PyObject* self, PyObject* args) {
  return guarded([&] {
    Py_ssize_t index;
    int kind;
    const char* user;
    Py_ssize_t size;
    parse(args, "niz#", &index, &kind, &user, &size);
    Batch& batch = self_of(self);
    Event& event = event_at(batch, index);
    if (kind < 0 || kind > 2) throw std::invalid_argument("no such kind of event");
    event = Event();
    event.kind = static_cast<Event::Kind>(Event::kInvalidPage + kind);
    event.has_user = user != nullptr;
    if (user) event.user_id = batch.decoder.keep(View(user, size));
    return none();
  });
}

PyObject* odd_queries(PyObject* self, PyObject*) {
  return guarded([&] {
    Batch& batch = self_of(self);
    return indexes_of(batch, [](Event& event) { return event.kind == Event::kPage && !event.has_query_key; });
  });
}

PyObject* lacking_levels(PyObject* self, PyObject*) {
  return guarded([&] {
    return indexes_of(self_of(self), [](Event& event) { return event.kind == Event::kPage && event.lacks_levels(); });
  });
}

PyObject* query(PyObject* self, PyObject* args) {
  return guarded([&] {
    Py_ssize_t index;
    parse(args, "n", &index);
    return text_of(event_at(self_of(self), index).query);
  });
}

PyObject* put_query_key(PyObject* self, PyObject* args) {
  return guarded([&] {
    Py_ssize_t index;
    const char* key;
    Py_ssize_t size;
    parse(args, "ns#", &index, &key, &size);
    Event& event = event_at(self_of(self), index);
    event.query_key.assign(key, size);
    event.has_query_key = true;
    return none();
  });
}

PyObject* event(PyObject* self, PyObject* args) {
  return guarded([&] {
    Py_ssize_t index;
    parse(args, "n", &index);
    const Event& event = event_at(self_of(self), index);
    std::string click;
    Writer out(click);
    if (event.kind == Event::kClick) write_click(out, event);
    return bytes_of(event.kind == Event::kClick ? click : event.encoded);
  });
}

PyObject* put_labelled(PyObject* self, PyObject* args) {
  return guarded([&] {
    Py_ssize_t index;
    const char* data;
    Py_ssize_t size;
    parse(args, "ny#", &index, &data, &size);
    Event& event = event_at(self_of(self), index);
    Event labelled;
    read_page(View(data, size), labelled);
    if (labelled.items.size() != event.items.size() || labelled.lacks_levels()) Reader::damaged();
    event.items = std::move(labelled.items);
    event.levels = std::move(labelled.levels);
    event.labelled.assign(data, size);
    return none();
  });
}

PyObject* times(PyObject* self, PyObject*) {
  return guarded([&] {
    std::vector<int64_t> found;
    for (const Event& event : self_of(self).events) found.push_back(event.is_valid() ? event.ts : -1);
    return bytes_of(View(reinterpret_cast<const char*>(found.data()), found.size() * sizeof(int64_t)));
  });
}

PyObject* user_ids(PyObject* self, PyObject* args) {
  return guarded([&] {
    Py_ssize_t step;
    parse(args, "n", &step);
    if (step < 1) throw std::invalid_argument("a step is at least 1");
    const std::vector<Event>& events = self_of(self).events;
    Ref found = checked(PyList_New(0));
    for (size_t i = 0; i < events.size(); i += step)
      append(found, events[i].is_valid() ? text_of(events[i].user_id) : none());
    return found;
  });
}

PyObject* split(PyObject* self, PyObject* args) {
  return guarded([&] {
    unsigned partitions;
    parse(args, "I", &partitions);
    if (!partitions) throw std::invalid_argument("there is at least one partition");
    Batch& batch = self_of(self);
    batch.partitions.clear();
    for (const Event& event : batch.events)
      batch.partitions.push_back(event.has_user ? partition_of(event.user_id, partitions) : 0);
    return list_of(batch.partitions, integer_of);
  });
}

}  // namespace

Batch& batch_of(PyObject* object) {
  if (!batch_type || !PyObject_TypeCheck(object, batch_type)) throw std::invalid_argument("not an EventBatch");
  return self_of(object);
}

PyObject* make_batch_type(PyObject* module) {
  static PyMethodDef methods[] = {
      {"unsure", unsure, METH_NOARGS, "Indexes of the records that are to be decoded in Python."},
      {"put_event", put_event, METH_VARARGS, "Set a record to an event, given as MessagePack."},
      {"put_invalid", put_invalid, METH_VARARGS, "Set a record to an invalid event: its kind, and its user or None."},
      {"odd_queries", odd_queries, METH_NOARGS, "Indexes of the pages whose query is to be normalised in Python."},
      {"query", query, METH_VARARGS, "Return the query of a page as it was typed."},
      {"put_query_key", put_query_key, METH_VARARGS, "Set the normalised query of a page."},
      {"lacking_levels", lacking_levels, METH_NOARGS, "Indexes of the pages with an item without a level."},
      {"event", event, METH_VARARGS, "Return an event as MessagePack, as it came; empty for an invalid one."},
      {"put_labelled", put_labelled, METH_VARARGS, "Set the MessagePack of a page with all levels."},
      {"times", times, METH_NOARGS, "Return the times of all records as int64, -1 for an invalid one."},
      {"user_ids", user_ids, METH_VARARGS, "Return the user of every so many records, None for an invalid one."},
      {"split", split, METH_VARARGS, "Assign each record to a partition, by its user; return all partitions."},
      {nullptr, nullptr, 0, nullptr}};
  static PyType_Slot slots[] = {{Py_tp_new, reinterpret_cast<void*>(create)},
                                {Py_tp_dealloc, reinterpret_cast<void*>(deallocate<Batch>)},
                                {Py_tp_methods, methods},
                                {0, nullptr}};
  static PyType_Spec spec = {"prectr.stream.native.core.EventBatch", sizeof(Holder<Batch>), 0, Py_TPFLAGS_DEFAULT, slots};
  batch_type = reinterpret_cast<PyTypeObject*>(PyType_FromModuleAndSpec(module, &spec, nullptr));
  // The module has a reference of its own, and this one is for as long as the process.
  return Py_XNewRef(reinterpret_cast<PyObject*>(batch_type));
}

}  // namespace prectr
