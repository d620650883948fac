"""Ways to run the whole system on one machine, without Docker: run, demo, replay."""
