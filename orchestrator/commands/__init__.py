"""What each verb of the command line does; `verbs.py` lists them by their words."""
