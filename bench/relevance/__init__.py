"""`python -m bench.relevance`: the text encoder against human grades, and how it is made."""
