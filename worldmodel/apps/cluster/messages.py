"""Episodes as bytes, on their way from a worker: plain arrays and JSON, in the codec that robots use."""

import json

from worldmodel.data import Episode
from worldmodel.data.shard import episode_arrays, episode_facts, episode_from
from worldmodel.remote.codec import pack, unpack


def packed_episode(episode: Episode) -> bytes:
    """An episode as bytes."""
    return pack({"facts": json.dumps(episode_facts(episode)), "arrays": episode_arrays(episode)})


def unpacked_episode(message: bytes) -> Episode:
    """The episode of `packed_episode`. Errors: `MessageError` or `DatasetError` for what is none."""
    content = unpack(message)
    return episode_from(content["arrays"], json.loads(content["facts"]))
