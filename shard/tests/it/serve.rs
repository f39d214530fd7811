//! The object shard, as a stock zenoh client sees it.

mod events;
mod grid;
mod lifecycle;
mod lists;
mod reads;
mod single;
mod writes;
