"""Reading exporters, PromQL and `prectr top` in tests."""
