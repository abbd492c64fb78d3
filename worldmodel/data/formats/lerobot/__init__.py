"""LeRobot datasets (LeRobotDataset v3.0), written and read without LeRobot.

How an episode of T actions becomes T frames, and where the rest goes:

- Frame t has observation t (`observation.state`, `observation.images.<camera>`), action t, and what came of
  it (`next.reward`, `next.done`, `next.truncated`). Extra columns are features named `extra.<name>`, which no
  policy of LeRobot takes for its input.
- The observation after the last action would need a frame without an action, and who trains on all frames
  would train on that one too. So it lies beside: `meta/worldmodel.parquet` has it for each episode (pixels as
  a PNG file), with terminated, truncated and the episode's info; `meta/worldmodel.json` has the dataset's
  info, the exact shapes of columns, and size and CRC-32 of each video. LeRobot looks at neither; what we read
  back is the same to the bit.
  They count only for the episodes that they were written with: one that was added later, or has another
  length by now, is read as if it were somebody else's.
- Somebody else's episode of T frames has T - 1 actions: nothing is known of what the last one led to, so it
  and its reward are left out, and the episode counts as truncated. Without `next.reward`, rewards are 0.
- Videos are H.264 without loss (RGB, no colour transform): about a third of the raw size for 64 x 64 images
  of a simulator, ten times that of the usual lossy video. FFmpeg decodes them, and so do PyAV and TorchCodec;
  a browser may not.
- LeRobot counts whole frames per second: timestamps follow the nearest number. The exact `control_period_s`
  comes back to us.
"""

from worldmodel.data.formats.lerobot.reader import read
from worldmodel.data.formats.lerobot.writer import write

__all__ = ["read", "write"]
