"""mlsec-lab: a hands-on course in machine-learning security.

Everything is imported where it is used, so that `import mlsec_lab` costs next to nothing:
    from mlsec_lab.victims import load_data, load_model          what is attacked
    from mlsec_lab.data_to_model.evasion import fgsm, pgd        attacks, defences and metrics, a file a threat
    from mlsec_lab.course import exercise                        the exercises, checked
    from mlsec_lab.display import explore, show                  figures and budget explorers
"""
import os

# Threads that wait for each other by spinning make two torch processes on two cores ten times slower; sleeping costs nothing.
# It has to be said before torch is imported, and what you have set yourself stays.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
