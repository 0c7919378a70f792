"""The commands of `prectr`, one file each; `ops.cli` imports the one that is called."""
