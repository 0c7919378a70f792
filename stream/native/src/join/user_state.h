// The state of one user in stage `join`, as `stream/join/user_state.py`.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "events/level_counts.h"

namespace prectr {

struct PendingPage;
struct PendingClick;

// A user's joined clicks in order, kept as the store has them: one encoded entry after the other.
class ClickHistory {
 public:
  size_t size() const { return clicks_.size(); }
  // Number of clicks before `ts`.
  size_t before(int64_t ts) const;
  // `encoded`: the `UserClick`.
  void add(int64_t ts, View request_id, View item_id, View encoded);
  void drop_first(size_t count);
  // An array of the `UserClick`s from `first` up to `last`.
  void write_clicks(Writer& out, size_t first, size_t last) const;
  void write(Writer& out) const;
  void read(Reader& in);

 private:
  struct Place {
    int64_t ts;
    uint32_t start, click, end;
  };

  View entry(const Place& place) const { return View(bytes_).substr(place.start, place.end - place.start); }
  View click(const Place& place) const { return View(bytes_).substr(place.click, place.end - place.click); }
  bool is_after(const Place& place, View other) const;

  std::string bytes_;
  std::vector<Place> clicks_;
};

class UserState {
 public:
  explicit UserState(std::string user_id) : id(std::move(user_id)) {}

  // Reads the store's entry; empty for none.
  void load(View stored);
  // Without the page ids closed more than `retention` ms before the watermark.
  void write(Writer& out, int64_t watermark, int64_t retention);

  void expire(int64_t ts, int64_t time_to_live);
  const std::string* closed_page_hash(View request_id, int64_t watermark, int64_t retention) const;
  void add_click(int64_t ts, View request_id, View item_id, View encoded, size_t keep);
  void mark_updated(int64_t ts) { updated_at_ = ts > updated_at_ ? ts : updated_at_; }
  void evict_clicks(size_t keep);
  // Number of joined clicks before `ts`; writes the last `limit` of them.
  int64_t write_history(Writer& out, int64_t ts, size_t limit) const;
  const LevelCounts& apply_closed_pages(int64_t ts);
  void add_closed_page(const PendingPage& page, const LevelCounts& counts, size_t keep);

  void add_pending(PendingPage& page);
  void remove_pending(PendingPage& page);
  PendingPage* pending_page(View request_id) const;
  bool is_idle() const { return pages_.empty() && clicks.empty(); }
  bool has_closed_pages() const { return !closed_.empty(); }

  const std::string id;
  std::unordered_map<std::string, std::vector<PendingClick*>> clicks;  // pending, by request_id
  bool loaded = false, dirty = false, accessed = false;

 private:
  static constexpr int64_t kNeverUpdated = -1;

  struct ClosedPage {
    std::string request_id;
    int64_t closes_at;
    std::string hash;
  };

  int64_t updated_at_ = kNeverUpdated, evicted_ = 0;
  LevelCounts totals_;
  ClickHistory history_;
  std::vector<std::pair<int64_t, LevelCounts>> unapplied_;
  std::vector<ClosedPage> closed_;
  std::unordered_map<View, PendingPage*> pages_;
  std::multiset<int64_t> page_times_;
};

}  // namespace prectr
