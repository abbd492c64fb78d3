"""Imports what the verbs need, and does nothing."""

import toy_tasks  # noqa: F401

import worldmodel.apps.bench.planners
import worldmodel.apps.cli
import worldmodel.apps.collect
import worldmodel.apps.control
import worldmodel.apps.serve
import worldmodel.apps.serving.metrics
import worldmodel.apps.serving.running
import worldmodel.apps.serving.server
import worldmodel.apps.train
import worldmodel.apps.verbs  # noqa: F401
