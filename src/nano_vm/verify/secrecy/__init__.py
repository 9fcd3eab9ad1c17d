"""What may leave: which labelled values reach whom, over all runs and in one."""
