"""A policy server: robots ask over a websocket, and one planner decides for all that ask together."""
