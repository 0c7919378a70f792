"""Prometheus metrics of every process, and the exporter that serves them."""
