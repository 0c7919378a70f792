"""`prectr` and `prectr-v2`: relevance matching and click-through rate in one network."""
