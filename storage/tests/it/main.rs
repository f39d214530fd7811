//! Tests of the storage layers, through their public interface.

#![allow(clippy::unwrap_used, reason = "a test ends where its helper does")]

mod child;
mod composite;
mod composite_health;
mod composite_layers;
mod corpus;
mod data;
mod data_budget;
mod data_checkpoint;
mod data_damage;
mod data_fjall;
mod data_full;
mod data_kill;
mod data_model;
mod doctor;
mod doctor_migrate;
mod log;
mod log_crash;
mod log_damage;
mod log_fjall;
mod log_full;
mod log_kill;
mod log_model;
mod log_script;
mod log_space;
mod snapshot;
mod snapshot_crash;
mod snapshot_damage;
mod snapshot_model;
mod snapshot_script;
