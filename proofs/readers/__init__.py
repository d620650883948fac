"""A reader of the dataset must never see half, though the converter dies all the time."""
