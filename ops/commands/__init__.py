"""The commands of `prectr`, one file each; `prectr.ops.cli.main` imports the one that is called."""
