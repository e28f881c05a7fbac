"""Tables filled with results, and the text of their numbers and notes; `fill` makes one."""
