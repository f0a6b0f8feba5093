"""One module for each table of the pipeline: which packets it catches, what happens to them, where they go next."""
