"""Packages: what pip brings in under a name, under a version and under a hash."""
import zipfile

import pytest

from mlsec_lab.model_to_model import packages
from mlsec_lab.model_to_model.supply_chain import CODE


def test_wheels_of_the_same_content_have_the_same_hash_and_a_correct_record(tmp_path):
    first, second = (packages.wheel(tmp_path / place, "signtools", "1.0", "x = 1\n") for place in ("a", "b"))
    assert first.read_bytes() == second.read_bytes() and first.name == "signtools-1.0-py3-none-any.whl"
    with zipfile.ZipFile(first) as archive:
        assert "signtools.py,sha256=" in archive.read("signtools-1.0.dist-info/RECORD").decode()
    assert packages.lock("signtools", "1.0", [first]).startswith("signtools==1.0 --hash=sha256:")


@pytest.mark.slow
def test_a_lock_keeps_look_alikes_out_where_names_and_versions_do_not(tmp_path):
    genuine = packages.wheel(tmp_path / "home", "signtools", "1.0", "x = 1\n")
    packages.wheel(tmp_path / "higher", "signtools", "99.0", CODE)
    packages.wheel(tmp_path / "same", "signtools", "1.0", CODE, build="1")
    packages.source_package(tmp_path / "source", "signtools", "2.0", f"import os\nos.chdir(os.environ['MLSEC_CASE'])\n{CODE}")
    home, higher, same, source = (tmp_path / name for name in ("home", "higher", "same", "source"))
    locked = packages.lock("signtools", "1.0", [genuine])
    ran = [(pip.executed, imported.executed, imported.result) for pip, imported in packages.install(
        [("signtools", [home, higher]), ("signtools==1.0", [home, same]), (locked, [home, same]), (locked, [same]), (locked, [home]), ("signtools", [home, source]),
         ("--only-binary :all:\nsigntools", [home, source])], "signtools")]
    assert ran[0][1] and ran[1][1]
    assert not any(pip or imported for pip, imported, _ in ran[2:5]) and ran[4] == (False, False, "loaded") and ran[3][2] == "refused"
    assert ran[5][0] and not ran[6][0] and ran[6][2] == "loaded"
