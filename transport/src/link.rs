//! Links between the nodes of a cluster.
