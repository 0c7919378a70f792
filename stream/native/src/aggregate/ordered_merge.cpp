#include "aggregate/ordered_merge.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <tuple>

namespace prectr {
namespace {

bool is_before(const PageRecord& a, const PageRecord& b) { return a->key() < b->key(); }
bool is_before_key(const PageRecord& record, const OrderKey& key) { return record->key() < key; }

template <typename Records>
auto first_after(Records& records, int64_t time) {
  return std::upper_bound(records.begin(), records.end(), time,
                          [](int64_t at, const PageRecord& record) { return at < record->closes_at; });
}

}  // namespace

OrderedMerge::OrderedMerge(size_t sources, size_t max_buffered) : max_buffered_(max_buffered), runs_(sources + 2) {}

size_t OrderedMerge::buffered() const {
  size_t count = 0;
  for (const Run& run : runs_) count += run.records.size();
  return count;
}

size_t OrderedMerge::add(size_t source, std::vector<PageRecord> records, int64_t watermark) {
  if (source + 2 >= runs_.size()) throw std::out_of_range("no such source");
  size_t behind = 0;
  if (!records.empty() && records.front()->closes_at <= watermark) {
    behind = first_after(records, watermark) - records.begin();
    records = reassign_late(std::move(records), behind, watermark);
  }
  append(runs_[source], std::move(records));
  return behind;
}

std::vector<PageRecord> OrderedMerge::reassign_late(std::vector<PageRecord> records, size_t count, int64_t watermark) {
  std::set<std::tuple<int64_t, std::string, std::string>> used;
  for (const PageRecord& record : late().records)
    used.emplace(record->closes_at, record->request_id, record->user_id);
  std::vector<PageRecord> moved;
  for (size_t i = 0; i < count; i++) {
    // The same ids may have been late before, at the same watermark.
    int64_t time = watermark + 1;
    while (!used.emplace(time, records[i]->request_id, records[i]->user_id).second) time++;
    moved.push_back(records[i]->moved(time));
  }
  std::stable_sort(moved.begin(), moved.end(), is_before);
  append(late(), std::move(moved));
  std::stable_sort(late().records.begin(), late().records.end(), is_before);
  late().stored = 0;
  records.erase(records.begin(), records.begin() + static_cast<std::ptrdiff_t>(count));
  return records;
}

void OrderedMerge::append(Run& run, std::vector<PageRecord> records) {
  auto kept = records.end();
  if (spill_boundary_) {
    kept = std::lower_bound(records.begin(), records.end(), spill_boundary_->view(), is_before_key);
    for (auto record = kept; record != records.end(); ++record)
      unwritten_.emplace_back(buffer_key((*record)->key()), (*record)->encoded());
  }
  std::move(records.begin(), kept, std::back_inserter(run.records));
}

size_t OrderedMerge::to_load(int64_t watermark, std::string& from) const {
  if (!spill_boundary_ || spill_boundary_->closes_at > watermark || !unwritten_.empty()) return 0;
  if (buffered() >= std::max<size_t>(1, max_buffered_ / 2)) return 0;
  from = buffer_key(spill_boundary_->view());
  return load_size();
}

void OrderedMerge::load(std::vector<PageRecord> loaded) {
  spill_boundary_.reset();
  if (loaded.size() > max_buffered_ / 2) {
    spill_boundary_.emplace(loaded.back()->key());
    loaded.pop_back();
  }
  // What is left in the last run came from the store too and precedes what is loaded now.
  Run& run = runs_.back();
  std::move(loaded.begin(), loaded.end(), std::back_inserter(run.records));
  run.stored = run.records.size();
}

std::vector<PageRecord> OrderedMerge::release(int64_t watermark) {
  std::vector<PageRecord> ready;
  for (Run& run : runs_) {
    if (run.records.empty() || run.records.front()->closes_at > watermark) continue;
    auto end = first_after(run.records, watermark);
    size_t count = end - run.records.begin();
    // Late records are all rewritten each time, so any of them may be in the store.
    size_t stored = &run == &late() ? count : std::min(count, run.stored);
    for (size_t i = 0; i < stored; i++) released_keys_.push_back(buffer_key(run.records[i]->key()));
    std::move(run.records.begin(), end, std::back_inserter(ready));
    run.records.erase(run.records.begin(), end);
    run.stored -= std::min(count, run.stored);
  }
  std::stable_sort(ready.begin(), ready.end(), is_before);
  return ready;
}

int64_t OrderedMerge::released_up_to(int64_t watermark) const {
  return spill_boundary_ ? std::min(watermark, spill_boundary_->closes_at - 1) : watermark;
}

void OrderedMerge::drain(const Put& put) {
  for (const std::string& key : released_keys_) put(key, nullptr);
  released_keys_.clear();
  for (const auto& [key, value] : unwritten_) put(key, &value);
  unwritten_.clear();
  for (Run& run : runs_) {
    for (; run.stored < run.records.size(); run.stored++) {
      const JoinedPage& record = *run.records[run.stored];
      put(buffer_key(record.key()), &record.encoded());
    }
  }
  if (buffered() > max_buffered_) evict(max_buffered_ / 2);
}

// Keeps the first `keep` records in memory; the store has all of them.
void OrderedMerge::evict(size_t keep) {
  std::vector<OrderKey> keys;
  for (const Run& run : runs_)
    for (const PageRecord& record : run.records) keys.push_back(record->key());
  std::nth_element(keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>(keep), keys.end());
  spill_boundary_.emplace(keys[keep]);
  for (Run& run : runs_) {
    run.records.erase(
        std::lower_bound(run.records.begin(), run.records.end(), spill_boundary_->view(), is_before_key),
        run.records.end());
    run.stored = run.records.size();
  }
}

}  // namespace prectr
