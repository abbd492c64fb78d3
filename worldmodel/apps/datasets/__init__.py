"""What `worldmodel data` does with recorded datasets."""
