"""Logs of events in files: JSON lines, plain or compressed, and Parquet; one event per line or row."""

from prectr.stream.readers.logfile import FileIdentity, LineBatch, LogFile
from prectr.stream.readers.merge import LogBatch, LogPart, Order, Run, read_in_order
from prectr.stream.readers.paths import check_log, open_log

__all__ = [
    "FileIdentity",
    "LineBatch",
    "LogBatch",
    "LogFile",
    "LogPart",
    "Order",
    "Run",
    "check_log",
    "open_log",
    "read_in_order",
]
