"""The back end on Ray: connects to a cluster, schedules cells with Tune, trains with Train."""
