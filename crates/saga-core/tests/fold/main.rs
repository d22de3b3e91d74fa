//! The fold, from outside: tables of scripts, and properties over random definitions, orders and noise.

mod checkpoints;
mod pass;
mod plans;
mod properties;
mod rig;
mod scripts;
mod world;
