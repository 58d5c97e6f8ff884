//! The same claims with Debian's etcd in place of our store: the apiserver keeps to the protocol, not to our store.

use crate::{faults, objects, store, workloads};
use coracle_tests::Step;

pub const STEPS: [Step; 7] = [
    ("etcdctl_finds_a_store_that_it_knows", store::etcdctl),
    ("an_object_is_created_shown_and_deleted", objects::create_show_delete),
    ("a_write_over_an_unseen_change_is_a_conflict", objects::conflict),
    ("a_watch_tells_every_change_in_order", objects::watch),
    ("a_long_list_comes_in_pages_that_miss_nothing", objects::pages),
    ("a_deployment_rolls_out_scales_and_rolls_back", workloads::deployment),
    ("no_acknowledged_write_is_lost_when_processes_are_killed", faults::writes_survive_kills),
];
