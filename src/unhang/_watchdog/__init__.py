"""What all servers do with timers and workers: the core joined to the platform."""
