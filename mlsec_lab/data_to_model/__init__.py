"""Data → Model: what an attacker's data does to a model (lessons 01 to 07). One file a threat."""
