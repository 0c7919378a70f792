// Stage `aggregate`, as `stream/aggregate/operator.py`, which is its specification: no I/O, no clock, no threads.
#pragma once

#include <unordered_map>
#include <utility>

#include "aggregate/ordered_merge.h"
#include "aggregate/query_state.h"

namespace prectr {

struct AggregateSettings {
  size_t sources;
  std::vector<double> half_lives;  // in ms
  size_t query_clicks;
  int64_t time_to_live;
  size_t max_buffered, cached_queries;
};

class Aggregate {
 public:
  explicit Aggregate(AggregateSettings settings)
      : merge(settings.sources, settings.max_buffered), settings_(std::move(settings)) {}

  // Takes the records that are due; then the queries that `missing` names must be loaded before `process`.
  void release(int64_t watermark) { due_ = merge.release(watermark); }
  std::vector<View> missing() const;
  // `stored` is the query's entry, empty for none.
  void load(View query, View stored);

  // Emits an encoded `Example` for each of them but the first `skip`, in order, and counts the levels of what it emits.
  std::vector<std::string> process(size_t skip, LevelCounts& counts);
  void drain(const Put& put);
  size_t due() const { return due_.size(); }
  size_t buffered() const { return merge.buffered(); }
  size_t cached_queries() const { return queries_.size(); }

  OrderedMerge merge;

 private:
  std::string example_of(const JoinedPage& record, QueryState& query) const;

  AggregateSettings settings_;
  std::vector<PageRecord> due_;
  std::unordered_map<std::string, QueryState> queries_;
  std::vector<std::pair<const std::string, QueryState>*> accessed_;
};

}  // namespace prectr
