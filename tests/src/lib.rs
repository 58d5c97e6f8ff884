//! What end-to-end tests stand on: clusters brought up and taken down, kubectl run with a deadline, watches followed.
//!
//! In: groups of named steps. Out: one test a step. A group shares one cluster, which comes up for its first step and goes
//! down when another group begins or all is over, whatever happened. A failing step shows the last lines of every log.
//!
//! Nothing here sleeps: what is waited for is a line, the end of a process, or an answer, and each has a deadline.

mod cluster;
mod group;
mod process;
mod watch;

pub use cluster::{Cluster, Process, Shape};
pub use group::{Group, Needs, Step, run};
pub use process::{Answer, Deadline, words};
pub use watch::Watch;
