"""mlsec-lab: a hands-on course in machine-learning security.

Everything is imported where it is used, so that `import mlsec_lab` costs next to nothing:
    from mlsec_lab.victims import load_data, load_model          what is attacked
    from mlsec_lab.data_to_model.evasion import fgsm, pgd        attacks, defences and metrics, a file a threat
    from mlsec_lab.course import exercise                        the exercises, checked
    from mlsec_lab.display import explore, show                  figures and budget explorers
"""
import ctypes
import os
import sys

# Threads that wait for each other by spinning make two torch processes on two cores ten times slower; threads that sleep at once
# make a single one a fifth slower. So they spin shortly, then sleep.
# It has to be said before torch is imported, and what you have set yourself stays.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# PyTorch asks for the same few megabytes thousands of times. Linux gives each piece back at once and fetches it anew, which is a
# quarter of a training's time; told to keep up to 2 GB at hand, it does not (mallopt(3): M_MMAP_THRESHOLD, M_TRIM_THRESHOLD).
if sys.platform == "linux":
    try:
        _keep = ctypes.CDLL(None).mallopt
        _keep(-3, 1 << 30), _keep(-1, (1 << 31) - 1)
    except (OSError, AttributeError):
        pass  # another C library than glibc: slower, nothing else

__version__ = "0.1.0"
