"""The decoy and the decision over HTTP: two processes, two ports, nothing shared but the bundle."""
