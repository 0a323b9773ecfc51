"""Runs any step list under every fault: what breaks, is lost, told, killed or done twice at each move of each step."""
