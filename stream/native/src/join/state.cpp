// The state of stage `join` in the store: what its files in Python write and read, under the same keys.
#include <algorithm>

#include "join/operator.h"

namespace prectr {

std::string store_key(char prefix, int64_t id) {
  std::string key(1, prefix);
  for (int shift = 56; shift >= 0; shift -= 8) key.push_back(static_cast<char>(id >> shift));
  return key;
}

void Join::restore_meta(View clock, int64_t next_id, const OutcomeCounts& counts) {
  clock_.restore(clock);
  next_id_ = next_id;
  outcomes = counts;
}

// Ids are given once, in order.
void Join::check_new(int64_t id) const {
  if (id >= next_id_ || pages_.contains(id) || clicks_.contains(id)) Reader::damaged();
}

void Join::restore_page(View key, View stored) {
  if (key.size() != 9) Reader::damaged();
  auto page = std::make_unique<PendingPage>();
  page->id = 0;
  for (char c : key.substr(1)) page->id = static_cast<int64_t>(static_cast<uint64_t>(page->id) << 8 | static_cast<uint8_t>(c));
  check_new(page->id);
  Reader in(stored);
  in.array_of(5);
  page->closes_at = in.count();
  page->labels = in.binary();
  for (size_t clicks = in.array(); clicks--;) {
    in.array_of(3);
    JoinedClick& click = page->joined.emplace_back();
    click.ts = in.count(), click.item_id = in.text(), click.encoded = in.binary();
  }
  page->content_hash = in.binary();
  page->encoded = in.binary();
  Event event;
  read_page(page->encoded, event);
  if (event.lacks_levels() || event.items.size() != page->labels.size()) Reader::damaged();
  page->ts = event.ts, page->request_id = event.request_id;
  page->levels = std::move(event.levels), page->items = std::move(event.items);
  page->user = &make_user(event.user_id);
  if (page->user->pending_page(page->request_id)) Reader::damaged();
  // A key that is not known yet is left empty, as that of a query without words.
  if (is_ascii(event.query)) page->query_key = ascii_query_key(event.query);
  page->dirty = false, page->stored = true;
  page->user->add_pending(*page);
  queue_.insert(page.get());
  pages_.emplace(page->id, std::move(page));
}

void Join::restore_click(View stored) {
  Reader in(stored);
  in.array_of(2);
  int64_t id = in.integer();
  check_new(id);
  Event event;
  read_event(in.raw(), event);
  if (event.kind != Event::kClick) Reader::damaged();
  UserState& user = make_user(event.user_id);
  auto click = std::make_unique<PendingClick>(
      PendingClick{id, event.ts, &user, std::string(event.request_id), std::string(event.item_id),
                   std::string(event.action), event.has_action, true});
  user.clicks[click->request_id].push_back(click.get());
  expiries_.emplace(click->ts + settings_.window, id);
  clicks_.emplace(id, std::move(click));
}

void Join::restore_future(View stored) {
  Reader in(stored);
  in.array_of(5);
  FutureEvent& event = future_.emplace_back();
  event.id = in.integer(), event.ts = in.count();
  event.expires_at = in.integer_in(-2 * Reader::kMaxCount, 2 * Reader::kMaxCount), event.offset = in.integer();
  event.value = in.binary();
  event.stored = true;
}

std::vector<std::string> Join::unloaded() const {
  std::vector<std::string> ids;
  for (const auto& [id, user] : users_)
    if (!user->loaded) ids.emplace_back(id);
  std::sort(ids.begin(), ids.end());
  return ids;
}

std::vector<std::pair<int64_t, std::string>> Join::odd_queries() const {
  std::vector<std::pair<int64_t, std::string>> found;
  for (const auto& [id, page] : pages_) {
    Event event;
    read_page(page->encoded, event);
    if (!is_ascii(event.query)) found.emplace_back(id, event.query);
  }
  return found;
}

void Join::set_query_key(int64_t id, View key) {
  auto found = pages_.find(id);
  if (found != pages_.end()) found->second->query_key = key;
}

void Join::drain_users(const Put& put) {
  std::string value;
  for (UserState* user : accessed_) {
    user->accessed = false;
    if (user->dirty) {
      value.clear();
      Writer out(value);
      user->write(out, watermark(), settings_.retention);
      put("u" + user->id, &value);
      user->dirty = false;
    }
    if (user->is_idle()) users_.erase(users_.find(user->id));
  }
  accessed_.clear();
}

void Join::drain(const Put& put) {
  drain_users(put);
  std::string value;
  Writer out(value);
  for (int64_t id : dirty_pages_) {
    auto found = pages_.find(id);
    if (found == pages_.end()) continue;
    PendingPage& page = *found->second;
    value.clear();
    out.array(5), out.integer(page.closes_at), out.binary(page.labels), out.array(page.joined.size());
    for (const JoinedClick& click : page.joined)
      out.array(3), out.integer(click.ts), out.text(click.item_id), out.binary(click.encoded);
    out.binary(page.content_hash), out.binary(page.encoded);
    put(store_key('p', id), &value);
    page.dirty = false, page.stored = true;
  }
  dirty_pages_.clear();
  for (int64_t id : unwritten_clicks_) {
    auto found = clicks_.find(id);
    if (found == clicks_.end()) continue;
    value.clear();
    out.array(2), out.integer(id);
    write_click(out, found->second->event());
    put(store_key('w', id), &value);
    found->second->stored = true;
  }
  unwritten_clicks_.clear();
  for (auto event = future_.rbegin(); event != future_.rend() && !event->stored; ++event) {
    value.clear();
    out.array(5), out.integer(event->id), out.integer(event->ts), out.integer(event->expires_at);
    out.integer(event->offset), out.binary(event->value);
    put(store_key('f', event->id), &value);
    event->stored = true;
  }
  for (const std::string& key : deleted_) put(key, nullptr);
  deleted_.clear();
}

}  // namespace prectr
