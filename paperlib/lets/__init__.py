"""LeTS: learn-to-share, multi-task fine-tuning that shares computation."""
