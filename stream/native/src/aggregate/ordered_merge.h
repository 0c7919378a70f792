// Records of several sources, released in the total order, as `stream/ordering/ordered_merge.py`. The watermark is the
// caller's.
#pragma once

#include <deque>
#include <functional>
#include <optional>

#include "aggregate/joined_page.h"

namespace prectr {

using Put = std::function<void(View key, const std::string* value)>;

class OrderedMerge {
 public:
  // max_buffered: records in memory after `drain`.
  OrderedMerge(size_t sources, size_t max_buffered);

  // Adds a source's next records; returns how many are behind the watermark and so were moved after it.
  size_t add(size_t source, std::vector<PageRecord> records, int64_t watermark);

  // How many records at most `load` is to be called with next, and from which key of the store on; 0 for none.
  size_t to_load(int64_t watermark, std::string& from) const;
  // Takes what the store has there, in order.
  void load(std::vector<PageRecord> loaded);
  size_t load_size() const { return max_buffered_ / 2 + 1; }

  // Removes the records that are due, in order.
  std::vector<PageRecord> release(int64_t watermark);
  // The time up to which all have been released.
  int64_t released_up_to(int64_t watermark) const;

  void drain(const Put& put);
  size_t buffered() const;

 private:
  // Records of one source in order; the first `stored` of them are also in the store.
  struct Run {
    std::deque<PageRecord> records;
    size_t stored = 0;
  };

  Run& late() { return runs_[runs_.size() - 2]; }
  std::vector<PageRecord> reassign_late(std::vector<PageRecord> records, size_t count, int64_t watermark);
  void append(Run& run, std::vector<PageRecord> records);
  void evict(size_t keep);

  size_t max_buffered_;
  std::vector<Run> runs_;  // of the sources, of late records in their new order, of what was read back
  std::optional<OwnOrderKey> spill_boundary_;  // records from here on are in the store only
  std::vector<std::pair<std::string, std::string>> unwritten_;
  std::vector<std::string> released_keys_;
};

}  // namespace prectr
