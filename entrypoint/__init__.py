"""The training job: `job.py` is the plan, `main.py` runs it, and each room's `__init__.py` says what it holds."""

__version__ = "1.0.0"
