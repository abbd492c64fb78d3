"""The verbs of the console script; each imports what it runs only then: a typing error is told at once."""

from worldmodel.apps.verbs.bench import BENCH_VERBS
from worldmodel.apps.verbs.data import DATA_VERBS
from worldmodel.apps.verbs.robot import ROBOT_VERBS
from worldmodel.apps.verbs.verb import Verb

VERBS: dict[str, Verb] = {**ROBOT_VERBS, **DATA_VERBS, **BENCH_VERBS}

__all__ = ["VERBS", "Verb"]
