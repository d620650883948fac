"""Versions of the dataset: published, frozen, verified, rolled back."""
