"""Model → Data: what a trained model gives away about the data it has seen (lessons 08 to 11). One file a threat."""
