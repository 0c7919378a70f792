"""Commands that run the pipeline, or inspect what it keeps."""
