"""Recorded experience: episodes, datasets of them, and windows drawn for training."""
