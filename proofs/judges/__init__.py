"""Judges of the Qlib dataset, none of whom shares the converter's code."""
