//! Tests of the storage layers, through their public interface.

#![allow(clippy::unwrap_used, reason = "a test ends where its helper does")]

mod child;
mod data;
mod data_budget;
mod data_checkpoint;
mod data_damage;
mod data_fjall;
mod data_full;
mod data_kill;
mod data_model;
mod log;
mod log_crash;
mod log_damage;
mod log_model;
mod log_script;
mod log_space;
mod snapshot;
