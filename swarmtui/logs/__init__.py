"""Log streams: framing, merge by time over replicas, spool on disk, and the session that survives reconnects."""
