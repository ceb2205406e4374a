"""`python -m mlsec_lab` is `mlsec-lab`."""
from mlsec_lab.cli import main

raise SystemExit(main())
