"""`prectr alerts` prints the shipped rules, with links that are absolute where an address is given."""

from pathlib import Path

import pytest
import yaml

from testkit.command import prectr
from tests.kit.observe.promql import RULES
from tests.kit.observe.promtool import promtool


def links(text: str, annotation: str) -> list[str]:
    groups = yaml.safe_load(text)["groups"]
    return [rule["annotations"][annotation] for group in groups for rule in group["rules"] if "alert" in rule]


def test_without_addresses_it_prints_the_rules_as_they_are() -> None:
    done = prectr("alerts")
    assert (done.returncode, done.stdout) == (0, RULES.read_text())


def test_links_are_absolute_and_prometheus_takes_the_rules(tmp_path: Path) -> None:
    out = tmp_path / "prectr.rules.yml"
    urls = ("--docs-url", "https://git.example.org/prectr/docs/", "--grafana-url", "http://grafana:3000")
    assert prectr("alerts", *urls, "--out", out).returncode == 0
    plain, absolute = RULES.read_text(), out.read_text()
    for annotation, base in (("runbook_url", "https://git.example.org/prectr/"), ("dashboard", "http://grafana:3000")):
        assert links(absolute, annotation) == [f"{base}{link}" for link in links(plain, annotation)]
    assert promtool("check", "rules", out).returncode == 0


@pytest.mark.parametrize("url", ["docs", "ftp://x/docs", "https://x/{{ $labels.job }}", "https://"])
def test_what_is_no_address_is_refused(url: str) -> None:
    done = prectr("alerts", "--docs-url", url)
    assert done.returncode == 2
    assert f"--docs-url {url}: must be an address" in done.stderr
