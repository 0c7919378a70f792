#include "join/user_state.h"

#include <algorithm>

#include "join/pending.h"

namespace prectr {

// --- ClickHistory --------------------------------------------------------------------------------------------------

size_t ClickHistory::before(int64_t ts) const {
  auto found = std::lower_bound(clicks_.begin(), clicks_.end(), ts,
                                [](const Place& place, int64_t time) { return place.ts < time; });
  return found - clicks_.begin();
}

// Whether a click comes after one of the same time, whose entry is `other`.
bool ClickHistory::is_after(const Place& place, View other) const {
  Reader own(entry(place)), theirs(other);
  own.array_of(4), theirs.array_of(4);
  own.integer(), theirs.integer();
  for (int i = 0; i < 2; i++) {
    View a = own.text(), b = theirs.text();
    if (a != b) return a > b;
  }
  return own.binary() > theirs.binary();
}

void ClickHistory::add(int64_t ts, View request_id, View item_id, View encoded) {
  std::string added;
  Writer out(added);
  out.array(4), out.integer(ts), out.text(request_id), out.text(item_id), out.binary(encoded);
  size_t index = clicks_.size();
  while (index && (clicks_[index - 1].ts > ts || (clicks_[index - 1].ts == ts && is_after(clicks_[index - 1], added))))
    index--;
  uint32_t start = index ? clicks_[index - 1].end : 0, size = static_cast<uint32_t>(added.size());
  bytes_.insert(start, added);
  uint32_t click = start + size - static_cast<uint32_t>(encoded.size());
  clicks_.insert(clicks_.begin() + index, {ts, start, click, start + size});
  for (size_t i = index + 1; i < clicks_.size(); i++)
    clicks_[i].start += size, clicks_[i].click += size, clicks_[i].end += size;
}

void ClickHistory::drop_first(size_t count) {
  if (!count) return;
  uint32_t size = clicks_[count - 1].end;
  bytes_.erase(0, size);
  clicks_.erase(clicks_.begin(), clicks_.begin() + count);
  for (Place& place : clicks_) place.start -= size, place.click -= size, place.end -= size;
}

void ClickHistory::write_clicks(Writer& out, size_t first, size_t last) const {
  out.array(last - first);
  for (size_t i = first; i < last; i++) out.raw(click(clicks_[i]));
}

void ClickHistory::write(Writer& out) const {
  out.array(clicks_.size());
  out.raw(bytes_);
}

void ClickHistory::read(Reader& in) {
  for (size_t clicks = in.array(); clicks--;) {
    View stored = in.raw();
    Reader entry(stored);
    entry.array_of(4);
    Place place{entry.count(), static_cast<uint32_t>(bytes_.size()), 0, 0};
    entry.text(), entry.text();
    View click = entry.binary();
    bytes_.append(stored);
    place.end = static_cast<uint32_t>(bytes_.size());
    place.click = place.end - static_cast<uint32_t>(click.size());
    clicks_.push_back(place);
  }
}

// --- UserState -----------------------------------------------------------------------------------------------------

void UserState::load(View stored) {
  loaded = true;
  if (stored.empty()) return;
  Reader in(stored);
  in.array_of(6);
  updated_at_ = in.integer_in(kNeverUpdated, Reader::kMaxCount);
  evicted_ = in.count();
  totals_.read(in);
  history_.read(in);
  for (size_t pages = in.array(); pages--;) {
    in.array_of(2);
    unapplied_.emplace_back(in.count(), LevelCounts());
    unapplied_.back().second.read(in);
  }
  for (size_t pages = in.map(); pages--;) {
    std::string request_id(in.text());
    in.array_of(2);
    int64_t closes_at = in.count();
    closed_.push_back({std::move(request_id), closes_at, std::string(in.binary())});
  }
  if (!in.done()) Reader::damaged();
}

void UserState::write(Writer& out, int64_t watermark, int64_t retention) {
  auto kept = std::find_if(closed_.begin(), closed_.end(),
                           [&](const ClosedPage& page) { return page.closes_at + retention > watermark; });
  closed_.erase(closed_.begin(), kept);
  out.array(6), out.integer(updated_at_), out.integer(evicted_);
  totals_.write(out);
  history_.write(out);
  out.array(unapplied_.size());
  for (const auto& [closes_at, counts] : unapplied_) {
    out.array(2), out.integer(closes_at);
    counts.write(out);
  }
  out.map(closed_.size());
  for (const ClosedPage& page : closed_)
    out.text(page.request_id), out.array(2), out.integer(page.closes_at), out.binary(page.hash);
}

// The clicks at or after `ts` are kept: they are newer than the record.
void UserState::expire(int64_t ts, int64_t time_to_live) {
  if (updated_at_ == kNeverUpdated || ts - updated_at_ <= time_to_live) return;
  updated_at_ = kNeverUpdated, evicted_ = 0, totals_ = {};
  history_.drop_first(history_.before(ts));
  unapplied_.clear(), closed_.clear();
}

const std::string* UserState::closed_page_hash(View request_id, int64_t watermark, int64_t retention) const {
  for (const ClosedPage& page : closed_)
    if (page.request_id == request_id) return page.closes_at + retention > watermark ? &page.hash : nullptr;
  return nullptr;
}

void UserState::add_click(int64_t ts, View request_id, View item_id, View encoded, size_t keep) {
  history_.add(ts, request_id, item_id, encoded);
  evict_clicks(keep);
}

void UserState::evict_clicks(size_t keep) {
  if (history_.size() <= keep) return;
  size_t older = page_times_.empty() ? history_.size() : history_.before(*page_times_.begin());
  if (older <= keep) return;
  history_.drop_first(older - keep);
  evicted_ += static_cast<int64_t>(older - keep);
}

int64_t UserState::write_history(Writer& out, int64_t ts, size_t limit) const {
  size_t before = history_.before(ts);
  history_.write_clicks(out, before > limit ? before - limit : 0, before);
  return evicted_ + static_cast<int64_t>(before);
}

const LevelCounts& UserState::apply_closed_pages(int64_t ts) {
  auto page = unapplied_.begin();
  for (; page != unapplied_.end() && page->first <= ts; ++page) totals_.add(page->second);
  unapplied_.erase(unapplied_.begin(), page);
  return totals_;
}

void UserState::add_closed_page(const PendingPage& page, const LevelCounts& counts, size_t keep) {
  unapplied_.emplace_back(page.closes_at, counts);
  // Removed first, so that an id that expired and came again is the last one.
  std::erase_if(closed_, [&](const ClosedPage& closed) { return closed.request_id == page.request_id; });
  closed_.push_back({page.request_id, page.closes_at, page.content_hash});
  mark_updated(page.ts);
  for (const JoinedClick& click : page.joined) mark_updated(click.ts);
  evict_clicks(keep);
}

void UserState::add_pending(PendingPage& page) {
  pages_.emplace(page.request_id, &page);
  page_times_.insert(page.ts);
}

void UserState::remove_pending(PendingPage& page) {
  pages_.erase(page.request_id);
  page_times_.erase(page_times_.find(page.ts));
}

PendingPage* UserState::pending_page(View request_id) const {
  auto found = pages_.find(request_id);
  return found == pages_.end() ? nullptr : found->second;
}

}  // namespace prectr
