"""Whether a worker on this machine lives and is ready, by what it last wrote: no broker, no app, little to import."""
