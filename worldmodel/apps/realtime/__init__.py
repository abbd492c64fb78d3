"""Control with a clock: a robot that does not wait, a planner in the background, the loop between them."""
