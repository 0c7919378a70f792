"""Logs of events in files: JSON lines, plain or compressed, and Parquet; one event per line or row."""

from prectr.stream.readers.logfile import FileIdentity, LineBatch, LogFile
from prectr.stream.readers.paths import open_log

__all__ = ["FileIdentity", "LineBatch", "LogFile", "open_log"]
