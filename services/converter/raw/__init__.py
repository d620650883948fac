"""What the raw folder holds, as the converter reads it."""
