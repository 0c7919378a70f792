"""The text encoder of the ranker: how relevant a title is to a query, and one vector for each."""
