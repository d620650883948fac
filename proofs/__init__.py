"""Why anybody should believe it: judges, chaos, replay, readers and benchmarks. Nothing imports this."""
