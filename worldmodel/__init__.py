"""A learned world model of a robot, and the applications that train and use it."""
