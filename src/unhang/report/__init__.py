"""Reports about hangs: what they hold (`model`), and how they are shown (`text`, `html`) and kept (`store`)."""
