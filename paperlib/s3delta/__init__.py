"""S3Delta: sparse structure search for delta tuning."""
