// A record of topic `joined-pages`, kept encoded as it came.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "events/level_counts.h"

namespace prectr {

// The place of a record in the total order; texts compare by their bytes.
struct OrderKey {
  int64_t closes_at;
  View request_id, user_id;

  auto operator<=>(const OrderKey&) const = default;
};

// An `OrderKey` that owns its texts.
struct OwnOrderKey {
  explicit OwnOrderKey(const OrderKey& key)
      : closes_at(key.closes_at), request_id(key.request_id), user_id(key.user_id) {}
  OrderKey view() const { return {closes_at, request_id, user_id}; }

  int64_t closes_at;
  std::string request_id, user_id;
};

// As `encode_order_key` in `state/encoding.py`, after the prefix of buffered records.
std::string buffer_key(const OrderKey& key);

// The views are of the record's own bytes.
class JoinedPage {
 public:
  // Raises Damaged unless the bytes are a record that stage `join` could have written; `is_checked`: Python has found
  // them so, although a text is long or a list has more entries than are known here.
  JoinedPage(View encoded, bool is_checked);
  JoinedPage(const JoinedPage&) = delete;

  // The same page with another close time.
  std::unique_ptr<JoinedPage> moved(int64_t closes_at) const;
  OrderKey key() const { return {closes_at, request_id, user_id}; }
  const std::string& encoded() const { return encoded_; }

  int64_t closes_at, ts;
  View request_id, user_id, query;
  LevelCounts counts;
  // Encoded fields: from the close time to the levels, the user's activity and counts, and one each.
  View head, user, history, page;
  std::vector<View> clicks;  // each a `QueryClick`

 private:
  std::string encoded_;
};

using PageRecord = std::unique_ptr<JoinedPage>;

}  // namespace prectr
