"""What everything stands on: files and folders written whole, records as JSON, tensors on disk, workers, messages."""
