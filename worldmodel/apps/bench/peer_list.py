"""Which planners of which libraries are compared, with which settings."""

from __future__ import annotations

from typing import Any

from worldmodel.apps.bench.peer_planners import (
    Peer,
    mbrl_planner,
    pytorch_icem_planner,
    pytorch_mppi_planner,
    stable_worldmodel_planner,
    torchrl_planner,
)


def _peers(library: str, install: str, **kinds: tuple[Any, ...]) -> list[Peer]:
    return [
        Peer(
            name=f"{library} {kind}", library=library, install=install, build=build, settings=settings, **more
        )
        for kind, (build, settings, *rest) in kinds.items()
        for more in [rest[0] if rest else {}]
    ]


_BATCHED = {"is_batched": True}
_PETS = {"elite_ratio": 0.1, "alpha": 0.1}
_SWM_INSTALL = "pip install --no-deps stable-worldmodel && pip install loguru"
_MBRL_INSTALL = "pip install --no-deps mbrl && pip install termcolor"

PEERS: list[Peer] = [
    *_peers(
        "pytorch_mppi",
        "pip install pytorch-mppi",
        MPPI=(pytorch_mppi_planner("MPPI", 1.0), "std 1, as ours begin; lambda 1 (default)"),
        SMPPI=(pytorch_mppi_planner("SMPPI", 1.0), "std 1, lambda 1; one command with all evaluations"),
        KMPPI=(pytorch_mppi_planner("KMPPI", 1.0), "std 1, lambda 1 (default)"),
    ),
    Peer(
        name="pytorch_mppi MPPI, tuned",
        library="pytorch_mppi",
        install="pip install pytorch-mppi",
        build=pytorch_mppi_planner("MPPI", 0.1, lambda_=0.01),
        settings="std 0.1, lambda 0.01: the best for this plant of 16 pairs tried",
    ),
    Peer(
        name="pytorch_mppi MPPI_Batched",
        library="pytorch_mppi",
        install="pip install pytorch-mppi",
        build=pytorch_mppi_planner("MPPI_Batched", 1.0),
        settings="std 1, lambda 1 (default); one noise for all environments",
        is_batched=True,
    ),
    *_peers(
        "pytorch_icem",
        "pip install pytorch-icem",
        iCEM=(pytorch_icem_planner, "patched: its constructor takes no sigma for more than one action"),
    ),
    *_peers(
        "torchrl",
        "pip install torchrl",
        CEM=(torchrl_planner("CEM"), "top_k an eighth; std 1 (fixed); no warm start", _BATCHED),
        MPPI=(
            torchrl_planner("MPPI"),
            "top_k an eighth; std 1 (fixed), temperature 1; no warm start",
            _BATCHED,
        ),
    ),
    *_peers(
        "mbrl",
        _MBRL_INSTALL,
        CEM=(mbrl_planner("CEMOptimizer", _PETS), "its PETS configuration"),
        MPPI=(
            mbrl_planner("MPPIOptimizer", {"gamma": 0.9, "sigma": 1.0, "beta": 0.9}),
            "its PETS configuration",
        ),
        iCEM=(
            mbrl_planner(
                "ICEMOptimizer",
                _PETS
                | {"population_decay_factor": 1.3, "colored_noise_exponent": 2.0, "keep_elite_frac": 0.3},
            ),
            "its PETS configuration",
        ),
    ),
    *_peers(
        "stable_worldmodel",
        _SWM_INSTALL,
        CEM=(stable_worldmodel_planner("CEMSolver"), "topk 30, std 1 (default)", _BATCHED),
        iCEM=(stable_worldmodel_planner("ICEMSolver"), "topk 30, std 1 (default)", _BATCHED),
        MPPI=(stable_worldmodel_planner("MPPISolver"), "topk 30, std 1, temperature 0.5 (default)", _BATCHED),
    ),
]
LIBRARIES = list(dict.fromkeys(peer.library for peer in PEERS))
