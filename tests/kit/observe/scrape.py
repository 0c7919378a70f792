"""Asks an exporter over HTTP, and reads what it says with Prometheus' own parser."""

import urllib.request

from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
ALLOWED_LABELS = {
    "stage",
    "partition",
    "topic",
    "model",
    "segment",
    "relevance_level",
    "window",
    "reason",
    "outcome",
    "type",
    "phase",
    "param_group",
    "loss",
}
"""And `le`, which is no label of ours but how a histogram names its buckets."""


def exposition(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def scrape_samples(port: int) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(exposition(port))
        for sample in family.samples
    }


def values_by_task(samples: Samples, name: str) -> dict[tuple[str, int], float]:
    """A metric by stage and partition."""
    found = {}
    for (sample, labels), value in samples.items():
        if sample == name:
            label_values = dict(labels)
            assert label_values.keys() == {"stage", "partition"}
            found[label_values["stage"], int(label_values["partition"])] = value
    return found
