"""The queue of a launch, and one attempt at a cell with its watchdog, stop and provenance."""
