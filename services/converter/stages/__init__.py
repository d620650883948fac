"""The stages of one conversion, in the order plan, load, compute, publish."""
