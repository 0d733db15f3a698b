"""The working side: dispatches pending rows, runs models, delivers results."""
