"""SimulatedCluster: a cluster, and programs that use it, in virtual time under a seed."""
