"""What a watchdog and its workers do, seen from outside: for people, probes and metrics."""
