"""What a row is: one file per dataset."""
