"""The ranker: says which instruments the platform tracks."""
