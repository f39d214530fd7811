//! A consistent view of the objects of a partition.

/// placeholder
#[derive(Debug)]
pub struct ObjectView;
