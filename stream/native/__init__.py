"""The native core: an optional extension in C++ that computes what the stages in Python specify, byte for byte."""
