"""Where a learner's own things live: copies of the lessons, progress, checkpoints they trained."""
import os
import tempfile
from pathlib import Path

COURSE = Path(__file__).resolve().parents[1]


def work_folder():
    """The learner's folder: MLSEC_HOME if it is set, `my_work/` in a checkout of the course, else ~/mlsec-lab."""
    named = os.environ.get("MLSEC_HOME")
    if named:
        return Path(named)
    return COURSE / "my_work" if (COURSE / "notebooks").is_dir() else Path.home() / "mlsec-lab"


def write_whole(path, content):
    """Write bytes by way of a temporary file: a killed process leaves the old file or the new one, never half of one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
