"""What learners look at: figures, budget explorers and the map. Knows arrays and callables, no attack."""
from mlsec_lab.display.explorers import Choice, Slider, explore
from mlsec_lab.display.figures import bars, compare, curves, listed, next_words, pictures, plane, readings, shaded_words, show
from mlsec_lab.display.loop_map import loop_map
from mlsec_lab.display.sequences import sequence
from mlsec_lab.display.tables import grid, program

__all__ = ["Choice", "Slider", "bars", "compare", "curves", "explore", "grid", "listed", "loop_map", "next_words", "pictures", "plane", "program", "readings",
           "sequence", "shaded_words", "show"]
