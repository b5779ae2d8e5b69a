"""The only place that knows an operating system: processes, pipes, waiting."""
