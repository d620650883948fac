"""Judges of the Qlib dataset, none of which shares the converter's code."""
