//! The scenarios, by subject.

mod access;
mod classes;
mod copies;
mod drivers;
mod failures;
mod inline;
mod restarts;
mod rotation;
mod scale;
mod volumes;
