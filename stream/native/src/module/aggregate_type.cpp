#include <memory>

#include "aggregate/operator.h"
#include "module/batch.h"

namespace prectr {
namespace {

Aggregate& self_of(PyObject* self) { return *reinterpret_cast<Holder<Aggregate>*>(self)->held; }

// The bytes of an object with a buffer, such as a `msgspec.Raw`, for as long as it lives.
class Buffer {
 public:
  explicit Buffer(PyObject* object) {
    if (PyObject_GetBuffer(object, &buffer_, PyBUF_SIMPLE)) throw Raised();
  }
  ~Buffer() { PyBuffer_Release(&buffer_); }
  Buffer(const Buffer&) = delete;
  View view() const { return {static_cast<const char*>(buffer_.buf), static_cast<size_t>(buffer_.len)}; }

 private:
  Py_buffer buffer_;
};

PyObject* create(PyTypeObject* type, PyObject* args, PyObject*) {
  return allocate<Aggregate>(type, [&] {
    Py_ssize_t sources, query_clicks, max_buffered, cached_queries;
    PyObject* half_lives;
    long long time_to_live;
    parse(args, "nOnLnn", &sources, &half_lives, &query_clicks, &time_to_live, &max_buffered, &cached_queries);
    if (sources < 0 || query_clicks < 0 || max_buffered < 0 || cached_queries < 0)
      throw std::invalid_argument("a size is negative");
    AggregateSettings settings{static_cast<size_t>(sources), {}, static_cast<size_t>(query_clicks), time_to_live,
                               static_cast<size_t>(max_buffered), static_cast<size_t>(cached_queries)};
    for_each(half_lives, [&](PyObject* half_life) {
      settings.half_lives.push_back(PyFloat_AsDouble(half_life));
      if (PyErr_Occurred()) throw Raised();
    });
    return std::make_unique<Aggregate>(std::move(settings));
  });
}

std::vector<PageRecord> records_of(PyObject* iterable, bool is_checked) {
  std::vector<PageRecord> records;
  for_each(iterable, [&](PyObject* encoded) {
    records.push_back(std::make_unique<JoinedPage>(Buffer(encoded).view(), is_checked));
  });
  return records;
}

PyObject* add(PyObject* self, PyObject* args) {
  return guarded([&] {
    Py_ssize_t source;
    long long watermark;
    PyObject* encoded;
    int is_checked;
    parse(args, "nOLp", &source, &encoded, &watermark, &is_checked);
    std::vector<PageRecord> records = records_of(encoded, is_checked);
    size_t late = self_of(self).merge.add(static_cast<size_t>(source), std::move(records), watermark);
    return integer_of(static_cast<int64_t>(late));
  });
}

PyObject* to_load(PyObject* self, PyObject* args) {
  return guarded([&] {
    long long watermark;
    parse(args, "L", &watermark);
    std::string from;
    return self_of(self).merge.to_load(watermark, from) ? bytes_of(from) : none();
  });
}

PyObject* load_spilled(PyObject* self, PyObject* encoded) {
  return guarded([&] {
    self_of(self).merge.load(records_of(encoded, true));
    return none();
  });
}

PyObject* release(PyObject* self, PyObject* args) {
  return guarded([&] {
    long long watermark;
    parse(args, "L", &watermark);
    Aggregate& aggregate = self_of(self);
    aggregate.release(watermark);
    return integer_of(aggregate.merge.released_up_to(watermark));
  });
}

PyObject* missing(PyObject* self, PyObject*) {
  return guarded([&] { return list_of(self_of(self).missing(), bytes_of); });
}

PyObject* load(PyObject* self, PyObject* args) {
  return guarded([&] {
    PyObject *names, *values;
    parse(args, "OO", &names, &values);
    Ref entries = checked(PySequence_Tuple(values));
    Py_ssize_t index = 0;
    for_each(names, [&](PyObject* name) {
      PyObject* value = PyTuple_GetItem(entries.get(), index++);
      if (!value) throw Raised();
      self_of(self).load(view_of(name), value == Py_None ? View() : view_of(value));
    });
    return none();
  });
}

PyObject* process(PyObject* self, PyObject* args) {
  return guarded([&] {
    Py_ssize_t skip;
    parse(args, "n", &skip);
    std::vector<std::string> examples;
    LevelCounts counts;
    {
      WithoutGil released;
      examples = self_of(self).process(skip < 0 ? 0 : static_cast<size_t>(skip), counts);
    }
    std::vector<Ref> result;
    result.push_back(list_of(examples, bytes_of));
    std::vector<Ref> numbers;
    for (int64_t count : counts.counts) numbers.push_back(integer_of(count));
    result.push_back(tuple_of(std::move(numbers)));
    return tuple_of(std::move(result));
  });
}

template <auto Method>
PyObject* number(PyObject* self, PyObject*) {
  return guarded([&] { return integer_of(static_cast<int64_t>((self_of(self).*Method)())); });
}

PyObject* changes(PyObject* self, PyObject*) {
  return guarded([&] {
    Ref dict = checked(PyDict_New());
    self_of(self).drain([&](View key, const std::string* value) { put_change(dict, key, value); });
    return dict;
  });
}

}  // namespace

PyObject* make_aggregate_type(PyObject* module) {
  static PyMethodDef methods[] = {
      {"add", add, METH_VARARGS, "Add a source's next records; return how many are behind the watermark."},
      {"to_load", to_load, METH_VARARGS, "Key of the store from which spilled records are to be loaded; None for none."},
      {"load_spilled", load_spilled, METH_O, "Load spilled records, in order."},
      {"release", release, METH_VARARGS, "Take the records that are due; return the time up to which they are complete."},
      {"missing", missing, METH_NOARGS, "Queries of the due records that are to be loaded, sorted."},
      {"load", load, METH_VARARGS, "Load the entries of queries, None for a new one."},
      {"due", number<&Aggregate::due>, METH_NOARGS, "Number of records that `process` will handle."},
      {"buffered", number<&Aggregate::buffered>, METH_NOARGS, "Number of records in memory that are not due."},
      {"cached_queries", number<&Aggregate::cached_queries>, METH_NOARGS, "Number of queries in memory."},
      {"process", process, METH_VARARGS, "Return the examples of the due records but for the first, and their counts."},
      {"changes", changes, METH_NOARGS, "Return the changes of the store but for the task's own entry."},
      {nullptr, nullptr, 0, nullptr}};
  static PyType_Slot slots[] = {{Py_tp_new, reinterpret_cast<void*>(create)},
                                {Py_tp_dealloc, reinterpret_cast<void*>(deallocate<Aggregate>)},
                                {Py_tp_methods, methods},
                                {0, nullptr}};
  static PyType_Spec spec = {"prectr.stream.native.core.Aggregate", sizeof(Holder<Aggregate>), 0, Py_TPFLAGS_DEFAULT,
                             slots};
  return PyType_FromModuleAndSpec(module, &spec, nullptr);
}

}  // namespace prectr
