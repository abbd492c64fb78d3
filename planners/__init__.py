"""Planners that improve action sequences, given one function that scores them."""
