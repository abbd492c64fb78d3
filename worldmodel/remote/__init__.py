"""What a robot and its policy server say to each other, and the robot's end of the line.

Needs numpy, msgpack and websockets alone: no torch, no simulator.
"""

from worldmodel.remote.client import Client

__all__ = ["Client"]
