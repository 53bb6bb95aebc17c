//! Tests of the state folder, by area. Those of several processes are in `processes`.

mod answers;
mod blocks;
mod cache_mounts;
mod collect;
mod contents;
mod fixture;
mod images;
mod memory;
mod open;
mod processes;
mod records;
mod repositories;
mod secret_key;
mod usage;
