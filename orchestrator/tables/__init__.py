"""Tables filled with results, and the words of their numbers and notes; `fill` makes one."""
