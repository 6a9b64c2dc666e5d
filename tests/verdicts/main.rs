//! Verdicts over runs made in memory, by workers and makers of bundles who change anything.
//!
//! A worker signs whatever it likes with its own key and repairs every link behind it: each rule of
//! the format is broken alone, and the verdict must name the edge and both its ends. A maker of
//! bundles has no key of the run: whatever is changed is refused or refuted, and what is left out
//! never makes a verdict better.

mod builder;
mod built;
mod container;
mod delegations;
mod frames;
mod genesis;
mod heads_and_anchors;
mod judged;
mod names;
mod openings;
mod order;
mod policies;
mod reading;
mod requirements;
mod rules;
mod signatures;
mod time;
mod withheld;
