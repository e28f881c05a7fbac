"""Where one trial may run: three small functions of one signature, trial in, outcome out."""
