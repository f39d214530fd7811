//! Tests of the storage layers, through their public interface.

mod data;
mod data_fjall;
