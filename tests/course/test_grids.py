"""The experiment behind lesson 03, at a size that takes seconds: its cells, one row, and the table."""
import json

import pandas
import pytest

from mlsec_lab.course import grids
from mlsec_lab.course.grids import Size, cells, measure, measure_towers, read_table, tidy, tower_cells
from mlsec_lab.course.sweep import sweep
from mlsec_lab.victims import pooled_cnn
from mlsec_lab.victims.image_text import two_tower


def test_the_cells_cover_every_attack_and_are_what_a_sweep_takes():
    rows = cells("signs", "cpu")
    counts = grids.SIZES["signs", "cpu"].counts
    for attack in grids.backdoors.ATTACKS:
        mine = [row for row in rows if row["attack"] == attack]
        assert {row["count"] for row in mine} == set(counts)
        for count in counts:
            assert len([row for row in mine if row["count"] == count]) == (10 if attack == "badnets" else 5)
        assert {row["count"] for row in mine if row["baselines"]} == {max(counts)}
    assert len([row for row in rows if row["attack"] == "none"]) == 10
    assert len({json.dumps(row) for row in rows}) == len(rows)
    assert [row["seed"] for row in rows] == sorted(row["seed"] for row in rows), "data are drawn once a seed"
    with pytest.raises(ValueError, match="dataset must be one of 'signs', 'cifar10'"):
        cells("gtsrb", "cpu")
    assert {row["attack"] for row in cells("cifar10", "cpu")} == {"none", "badnets", "blended"}, "on a CPU photographs get a smaller experiment"
    assert [{**row, "device": ""} for row in cells("cifar10", "cuda:1")] == [{**row, "dataset": "cifar10", "device": ""} for row in rows]


@pytest.mark.slow
def test_a_cell_is_a_row_and_rows_make_a_table(monkeypatch, tmp_path):
    monkeypatch.setitem(grids.SIZES, ("signs", "cpu"), Size(lambda *shape, seed: pooled_cnn(*shape, width=4, seed=seed), 400, 1, 100, 60, (10, 40)))
    monkeypatch.setattr(grids, "STEPS", 50)
    chosen = [dict(dataset="signs", device="cpu", attack=attack, count=count, seed=0, baselines=attack == "none", detectors=count == 40)
              for attack, count in (("none", 0), ("badnets", 10), ("badnets", 40))]
    frame = sweep(measure, chosen, folder=tmp_path, progress=False)
    assert set(frame["error"]) == {""}
    assert frame["accuracy"].between(0, 1).all() and frame["pivotal tuning: asr"].between(0, 1).all() and frame["calibrated"].between(-1, 1).all()
    assert frame["NAD: asr"].notna().tolist() == [True, False, False] and frame["neural cleanse"].notna().tolist() == [False, False, True]
    within = [frame[f"pivotal tuning: asr{part}"] for part in (" within 1 point", "", " within 3 points")]
    assert (within[0] >= within[1]).all() and (within[1] >= within[2]).all(), "who may lose more leaves no more of the backdoor"
    table = tidy(frame)
    assert list(zip(table["attack"], table["count"], table["seed"])) == [("none", 0, 0), ("badnets", 10, 0), ("badnets", 40, 0)]
    assert not {"error", "seconds", "device"} & {*table.columns}
    pandas.testing.assert_frame_equal(table, tidy(sweep(measure, chosen, folder=tmp_path, progress=False)))


@pytest.mark.slow
def test_a_model_that_learns_from_captions_is_a_row_too(monkeypatch):
    monkeypatch.setattr(grids, "TOWERS", Size(two_tower, 300, 1, 100, 60, (10,)))
    monkeypatch.setattr(grids, "STEPS", 50)
    row = measure_towers("signs", "cpu", "badnets", 10, 0)
    assert 0 <= row["asr"] <= 1 and 0 <= row["fine-tuning: asr"] <= 1 and -1 <= row["calibrated"] <= 1
    assert {(cell["attack"], cell["count"]) for cell in tower_cells("signs", "cpu")} == {("none", 0), ("badnets", 10)}
    with pytest.raises(ValueError, match="dataset must be one of 'signs'"):
        tower_cells("cifar10", "cuda")


def test_a_table_is_read_by_the_name_of_its_experiment_or_the_command_is_named(monkeypatch, tmp_path):
    table = read_table("undetectable_or_robust")
    assert {"attack", "count", "seed", "accuracy", "asr", "calibrated"} <= {*table.columns} and table["asr"].between(0, 1).all()
    monkeypatch.setattr(grids, "TABLES", tmp_path)
    with pytest.raises(FileNotFoundError, match="mlsec-lab sweep undetectable_or_robust --dataset cifar10"):
        read_table("undetectable_or_robust", "cifar10")
    with pytest.raises(ValueError, match="name must be one of"):
        read_table("undetectable")
