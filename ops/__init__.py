"""What a person touches: the commands, the configuration, the metrics and the report."""
