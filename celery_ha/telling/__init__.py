"""Where decisions are told: each once, as a log line, as an event of Celery's, and as a count."""
