"""What learners look at: figures, budget explorers and the map. Knows arrays and callables, no attack."""
from mlsec_lab.display.explorers import Choice, Slider, explore
from mlsec_lab.display.figures import bars, compare, curves, pictures, plane, readings, show
from mlsec_lab.display.loop_map import loop_map

__all__ = ["Choice", "Slider", "bars", "compare", "curves", "explore", "loop_map", "pictures", "plane", "readings", "show"]
