"""lus scores lung ultrasound videos from 0 to 3 and shows which regions the model attends to."""

__version__ = "0.1.0"
