"""What the user takes home: metrics, exports, the report, and their publication in RESULT_DIR.

Nothing in here changes a trained weight.
"""
