"""paperlib: the appendices of S3Delta, LeTS and DPS, executed, audited and improved."""
