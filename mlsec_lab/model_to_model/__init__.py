"""Model → Model: what one model, or the file that holds it, does to another (lessons 12 to 16). One file a threat."""
