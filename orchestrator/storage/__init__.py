"""Where runs and results lie and who owns them: a folder or a bucket; `root` is the door."""
