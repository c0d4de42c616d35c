"""lus scores lung ultrasound videos from 0 to 3 and shows where it looked."""

__version__ = "0.1.0"
