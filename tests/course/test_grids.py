"""The experiment behind lesson 03, at a size that takes seconds: its cells, one row, and the table."""
import json

import pandas
import pytest

from mlsec_lab.course import grids
from mlsec_lab.course.grids import GRIDS, Size, cells, measure, summarise
from mlsec_lab.course.sweep import sweep
from mlsec_lab.victims import pooled_cnn


def test_the_cells_cover_every_attack_and_are_what_a_sweep_takes():
    rows = cells("signs", "cpu")
    counts = grids.SIZES["signs"].counts
    for attack in grids.backdoors.ATTACKS:
        mine = [row for row in rows if row["attack"] == attack]
        assert {row["count"] for row in mine} == set(counts)
        for count in counts:
            assert len([row for row in mine if row["count"] == count]) == (10 if attack in ("badnets", "pcb") else 5)
        assert {row["count"] for row in mine if row["baselines"]} == {max(counts)}
    assert len([row for row in rows if row["attack"] == "none"]) == 10
    assert len({json.dumps(row) for row in rows}) == len(rows)
    assert [row["seed"] for row in rows] == sorted(row["seed"] for row in rows), "data are drawn once a seed"
    with pytest.raises(ValueError, match="dataset must be one of 'signs', 'cifar10'"):
        cells("gtsrb", "cpu")


@pytest.mark.slow
def test_a_cell_is_a_row_and_rows_make_a_table(monkeypatch, tmp_path):
    monkeypatch.setitem(grids.SIZES, "signs", Size(lambda *shape, seed: pooled_cnn(*shape, width=4, seed=seed), 400, 1, 100, 60, (10, 40)))
    chosen = [dict(dataset="signs", device="cpu", attack=attack, count=count, seed=seed, baselines=False)
              for attack, count in (("none", 0), ("badnets", 10), ("badnets", 40)) for seed in (0,)]
    frame = sweep(measure, chosen, folder=tmp_path, progress=False)
    assert set(frame["error"]) == {""}
    assert frame["accuracy"].between(0, 1).all() and frame["pivotal tuning: asr"].between(0, 1).all() and frame["calibrated"].between(-1, 1).all()
    table = summarise(frame)
    assert list(zip(table["attack"], table["count"], table["models"])) == [("badnets", 10, 1), ("badnets", 40, 1)]
    for detector in ("calibrated", "uncalibrated", "neural cleanse"):
        assert (table[f"{detector}: low"] <= table[f"{detector}: auc"]).all() and (table[f"{detector}: auc"] <= table[f"{detector}: high"]).all()
    assert table["asr"].tolist() == pytest.approx(frame[frame["attack"] == "badnets"].groupby("count")["asr"].mean().tolist(), abs=1e-4)
    assert (table["pivotal tuning: worst asr"] >= table["pivotal tuning: asr"] - 1e-4).all()
    pandas.testing.assert_frame_equal(table, summarise(sweep(measure, chosen, folder=tmp_path, progress=False)))


def test_the_table_goes_beside_the_courses_other_data():
    grid = GRIDS["undetectable_or_robust"]
    assert grid.out("signs").parent.parent.name == "data" and grid.out("signs").suffix == ".csv"
