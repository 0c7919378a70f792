"""Drafts of mappings: columns are recognised, and a mapping file is written for them."""
