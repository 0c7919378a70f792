"""The sections on the log: warnings, dead letters, and how it runs in time."""

from prectr.ops.report.charts import bar
from prectr.ops.report.markup import Markup, stat, tag
from prectr.ops.report.numbers import count, percent, ratio
from prectr.ops.report.schema import Report


def warnings(report: Report) -> Markup:
    """What makes the figures mean less than they seem to."""
    if not report.warnings:
        return Markup("")
    return tag(
        "section",
        tag("h2", "Warnings"),
        tag("p", "Read these warnings first: they put the figures below in doubt.", class_="note"),
        tag("ul", *(tag("li", warning) for warning in report.warnings)),
    )


def dead_letters(report: Report) -> Markup:
    """Dead letters by reason, most first, and their kinds with an example."""
    reasons = sorted(report.dead_letters.items(), key=lambda item: (-item[1], item[0]))
    if not reasons:
        return tag(
            "section", tag("h2", "Dead letters"), tag("p", "None: every record was a valid event.", class_="lead")
        )
    largest = max(reasons[0][1], 1)
    body = [
        tag(
            "tr",
            tag("th", reason, scope="row"),
            tag("td", stat(f"dead_letters/{reason}", count(number))),
            tag("td", bar(number / largest, "s-4"), class_="wide"),
        )
        for reason, number in reasons
    ]
    kinds = [
        tag(
            "li",
            f"{kind.reason} ({count(kind.count)}): {kind.detail}. First at {kind.file}:{kind.line}: ",
            tag("code", kind.example or "(empty line)"),
        )
        for kind in report.rejections
    ]
    return tag(
        "section",
        tag("h2", "Dead letters"),
        tag("p", "Invalid records by reason; their bytes and source are kept in dead-letters.jsonl.", class_="note"),
        tag("div", tag("table", tag("tbody", *body)), class_="scroll"),
        tag("ul", *kinds, class_="examples") if kinds else Markup(""),
    )


def order(report: Report) -> Markup:
    """How many events step back in time, in all and by file."""
    found = report.log_order
    if found is None:
        return Markup("")
    rows = [
        tag(
            "tr",
            tag("th", tag("bdi", file.file), scope="row"),
            tag("td", count(file.behind)),
            tag("td", percent(ratio(file.behind, file.events), 2)),
        )
        for file in found.files
        if file.behind
    ]
    summary = tag(
        "p",
        stat("log_order/behind", count(found.behind)),
        f" of {count(found.events)} events ({percent(found.share, 2)}) step back by more than allowed_lateness behind "
        "those read before; ",
        stat("log_order/ahead", count(found.ahead)),
        " are more than max_clock_skew ahead of the others.",
        class_="check",
    )
    table = tag("div", tag("table", tag("tbody", *rows)), class_="scroll") if rows else Markup("")
    return tag("section", tag("h2", "Order of the log"), summary, table)
