"""What is measured, against the thing compared, in the same run."""
