"""Every task by name, behind one Gymnasium interface."""
