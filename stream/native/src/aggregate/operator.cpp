#include "aggregate/operator.h"

#include <algorithm>
#include <stdexcept>

namespace prectr {

std::vector<View> Aggregate::missing() const {
  std::vector<View> names;
  for (const PageRecord& record : due_)
    if (!queries_.contains(std::string(record->query))) names.push_back(record->query);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

void Aggregate::load(View query, View stored) {
  QueryState loaded(settings_.half_lives, settings_.query_clicks);
  loaded.load(stored);
  queries_.emplace(query, std::move(loaded));
}

std::vector<std::string> Aggregate::process(size_t skip, LevelCounts& counts) {
  std::vector<std::string> examples;
  for (size_t i = 0; i < due_.size(); i++) {
    const JoinedPage& record = *due_[i];
    auto found = queries_.find(std::string(record.query));
    if (found == queries_.end()) throw std::logic_error("a query was not loaded");
    auto& entry = *found;
    QueryState& query = entry.second;
    if (!query.accessed) accessed_.push_back(&entry);
    query.accessed = true;
    query.expire(record.ts, settings_.time_to_live);
    query.apply_closed_pages(record.ts);
    if (i >= skip) {
      examples.push_back(example_of(record, query));
      counts.add(record.counts);
    }
    query.add_closed_page(record);
  }
  due_.clear();
  return examples;
}

std::string Aggregate::example_of(const JoinedPage& record, QueryState& query) const {
  std::string example;
  example.reserve(record.encoded().size() + 512);
  Writer out(example);
  out.array(14);
  out.raw(record.head);
  out.raw(record.user);
  query.write_totals(out);
  query.write_decayed(out, record.ts);
  out.raw(record.history);
  query.write_clicks(out);
  out.raw(record.page);
  return example;
}

void Aggregate::drain(const Put& put) {
  merge.drain(put);
  std::string value;
  for (auto* entry : accessed_) {
    value.clear();
    Writer out(value);
    entry->second.write(out);
    put("q" + entry->first, &value);
  }
  if (queries_.size() > settings_.cached_queries)
    std::erase_if(queries_, [](const auto& entry) { return !entry.second.accessed; });
  for (auto* entry : accessed_) entry->second.accessed = false;
  accessed_.clear();
}

}  // namespace prectr
