import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from worldmodel.errors import RunError
from worldmodel.training import MetricLogger, read_metrics


def test_a_record_is_in_the_file_when_log_returns(tmp_path):
    with MetricLogger(tmp_path) as metrics:
        for step in (10, 20):
            metrics.log(step, {"train/loss": 1 / step, "eval/return": 3.0})
            lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
            assert json.loads(lines[-1]) == {"env_steps": step, "train/loss": 1 / step, "eval/return": 3.0}
    assert len(lines) == 2
    assert read_metrics(tmp_path) == [json.loads(line) for line in lines]


def test_tensorboard_holds_the_numbers(tmp_path):
    with MetricLogger(tmp_path) as metrics:
        metrics.log(10, {"train/loss": 0.5})
        metrics.log(30, {"train/loss": 0.25, "eval/return": 7.0})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == {"train/loss", "eval/return"}
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(10, 0.5), (30, 0.25)]


def test_a_run_without_metrics_has_none(tmp_path):
    assert read_metrics(tmp_path) == []


@pytest.mark.parametrize("half", ['{"env_steps": 30, "x', '{"env_steps"', "3", "{"])
def test_a_line_cut_short_is_left_out_and_costs_no_other(tmp_path, half):
    with MetricLogger(tmp_path) as metrics:
        metrics.log(10, {"x": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(half)
    assert [record["env_steps"] for record in read_metrics(tmp_path)] == [10]
    with MetricLogger(tmp_path) as metrics:  # the run goes on
        metrics.log(20, {"x": 2.0})
    assert [record["env_steps"] for record in read_metrics(tmp_path)] == [10, 20]


def test_steps_that_were_redone_after_a_resume_count_once(tmp_path):
    with MetricLogger(tmp_path) as metrics:
        for step in (10, 20, 30, 40):
            metrics.log(step, {"x": float(step)})
    with MetricLogger(tmp_path) as metrics:  # resumed from a checkpoint of step 20
        for step in (25, 35):
            metrics.log(step, {"x": -float(step)})
    assert [(r["env_steps"], r["x"]) for r in read_metrics(tmp_path)] == [
        (10, 10),
        (20, 20),
        (25, -25),
        (35, -35),
    ]


def test_records_of_one_step_are_all_kept(tmp_path):
    with MetricLogger(tmp_path) as metrics:
        metrics.log(10, {"train/return": 1.0})
        metrics.log(10, {"train/return": 2.0})
        metrics.log(10, {"eval/return": 3.0})
    assert len(read_metrics(tmp_path)) == 3


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(RunError, match=r"cannot write metrics to .*missing"):
        MetricLogger(tmp_path / "missing")
