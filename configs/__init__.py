"""Names and numbers for every application (Hydra); no code."""
