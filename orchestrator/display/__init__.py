"""What is shown in a terminal: the progress of a launch, and the states of a grid."""
