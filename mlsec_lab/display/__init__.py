"""What learners look at: figures, budget explorers and the map. Knows arrays and callables, no attack."""
from mlsec_lab.display.explorers import Choice, Slider, explore
from mlsec_lab.display.figures import bars, compare, curves, pictures, plane, readings, show
from mlsec_lab.display.loop_map import loop_map
from mlsec_lab.display.sequences import sequence
from mlsec_lab.display.tables import grid, program
from mlsec_lab.display.words import listed, next_words, shaded_words

__all__ = ["Choice", "Slider", "bars", "compare", "curves", "explore", "grid", "listed", "loop_map", "next_words", "pictures", "plane", "program", "readings",
           "sequence", "shaded_words", "show"]
